"""The errors that a user can mend: each is one line per problem, never a traceback."""

import errno
from collections.abc import Sequence

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """One or more problems that the user can mend; `problems` holds one line for each."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems


class CannotGoOn(UserError):  # noqa: N818 - as below
    """What a study ran into that no other path can avoid: a full disk, workers that cannot start."""

    exit_code = 1


class DamagedFile(Exception):  # noqa: N818 - it names a finding, which is mended, not a mistake of the caller
    """A file whose bytes do not match the checksum that was stored with it. It is rebuilt, never used."""


class LostRank(Exception):  # noqa: N818 - as above
    """A process that trained the same model is gone. What it was at is trained again."""


def one_line(error: BaseException, most: int | None = 200) -> str:
    """The first line of an error's message, cut after `most` characters; the error's type where there is no message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:most]


def storage_problem(
    error: BaseException, folder: object, settings: str = " with paths.store and paths.output"
) -> str | None:
    """One line for an error of a file system that is full or cannot be written, or None for any other error.

    `settings`: with which ones another folder is given.
    """
    if not isinstance(error, OSError):
        return None
    where = error.filename or folder
    if error.errno in FULL:
        return (
            f"the disk is full ({where}): nothing that was finished is lost; make room (replay-store gc drops what no "
            "study refers to; keep_states=none keeps least), then the same command goes on from here"
        )
    if error.errno in CLOSED:
        return f"{where} cannot be written ({error.strerror}): give a folder that can{settings}"
    return None
