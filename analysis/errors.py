"""The error that a user of the analysis can mend: one line for each problem, never a traceback."""

import errno
from collections.abc import Sequence

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """One or more problems that the user can mend; `problems` holds one line for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems


class CurveError(UserError, ValueError):
    """Points through which no reference curve can be laid; `problems` says why, a line each."""


def file_problem(error: OSError) -> str:
    """One line for a file that cannot be read or written, and what to do."""
    where = error.filename or "a file"
    if error.errno in _FULL:
        return f"the disk is full ({where}): the run table is untouched; make room, then give the same command again"
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _CLOSED:
        return f"{where} cannot be read or written ({reason}); another folder for the report is given with --out"
    return f"{where}: {reason}"
