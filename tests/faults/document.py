"""`python -m tests.faults.document` writes docs/faults.md from the lists that the fault tests are made from."""

from pathlib import Path

from replay_sweeps.store.file_kinds import FILE_KINDS
from tests.faults.commands import COMMANDS
from tests.faults.damage import FILE_FAULTS, FOLDER_FAULTS
from tests.mutants.mutations import MUTATIONS

FILE = Path(__file__).parent.parent.parent / "docs" / "faults.md"
MADE_AGAIN, WAITS, STOPS = "made again", "stays until it is read", "stops gc; its study writes it anew"
WRITTEN, CLEARED = "written anew", "cleared"
BY_FOLDER = {"studies": STOPS, "claims": CLEARED, "failures": CLEARED, "history": WAITS, "logs": WAITS}
TEXT = """# Faults

What happens when a file of a store or of a study's folder is damaged, replaced or lost, or when a command is killed.
`python -m tests.faults.document` writes this page from the lists that the tests are made from.

## What holds

For each kind of file, each fault and each command: no traceback, no wait without end, no file harmed but the damaged
one (a state's or a text's folder counts as one), nothing written or removed outside `paths.store` and `paths.output`.
Where `replay-sweep` ends with 0, weights, losses and tables have the same bits as without the fault.

Two exceptions. A folder of the store (`states`, `text/tokens`, ...) may be a link that leads to another disk: then its
user made it, and files are written there; none that lies there is removed. `studies/` or a file in it that is *missing*
looks as if its studies were forgotten: `gc` then moves what only they needed into the store's trash, for a day.

Commands: {commands}. `analyze` reads the study's folder alone.

Faults of a file: {file_faults}.

Faults of a folder, for each folder that such a file lies in: {folder_faults}.

`unreadable` is left out for root, who reads every file.

| file | holds | damaged, it is |
|---|---|---|
{kinds}

A file of a new kind is added to `replay_sweeps/store/file_kinds.py`; the tests fail on a file of no kind.

## Killed at any write

A worker is killed at its n-th `fsync`, `rename`, `replace`, `unlink` or `rmdir`, for n spread over the whole run:
alone, and beside a command of another host on the same store. A command that really trains is killed at three of
them. At every moment a run that counts as done has its weights, under `keep_states=leaves` and `all`. The same command
then ends with the same bits and leaves no half-written file; leases that are left are cleared by `replay-store gc`.

Run all of it with `make test-faults`.

## Promises broken by hand

`make mutants` breaks one promise at a time in a copy of the checkout. The tests that are named for it must fail.
Score: {score} of {score}.

| promise | file |
|---|---|
{promises}
"""


def document() -> str:
    """The page."""
    kinds = [f"| `{kind.pattern}` | {kind.holds} | {_then(kind.pattern, kind.place)} |" for kind in FILE_KINDS]
    return TEXT.format(
        commands=", ".join(f"`{name}`" for name in sorted(COMMANDS)),
        file_faults=", ".join(FILE_FAULTS),
        folder_faults=", ".join(FOLDER_FAULTS),
        kinds="\n".join(kinds),
        score=len(MUTATIONS),
        promises="\n".join(f"| {each.promise} | `{each.file}` |" for each in MUTATIONS),
    )


def _then(pattern: str, place: str) -> str:
    if pattern.startswith(("text/text", "text/sampled")):
        return WAITS
    return BY_FOLDER.get(pattern.partition("/")[0], MADE_AGAIN if place == "store" else WRITTEN)


if __name__ == "__main__":
    FILE.write_text(document())
