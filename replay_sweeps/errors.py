"""The errors that a user can mend: each is one line per problem, never a traceback."""

from collections.abc import Sequence


class UserError(Exception):
    """One or more problems that the user can mend; `problems` holds one line for each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems


class DamagedFile(Exception):  # noqa: N818 - it names a finding, which is mended, not a mistake of the caller
    """A file whose bytes do not match the checksum that was stored with it. It is rebuilt, never used."""
