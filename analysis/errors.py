"""The error that a user of the analysis can mend: one line for each problem, never a traceback."""

from collections.abc import Sequence


class UserError(Exception):
    """One or more problems that the user can mend; `problems` holds one line for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems


class CurveError(UserError, ValueError):
    """Points through which no reference curve can be laid; `problems` says why, a line each."""
