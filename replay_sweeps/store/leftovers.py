"""Leftovers: what killed processes left half written, and what was put aside as damaged."""

import time
from collections.abc import Iterator
from pathlib import Path

from replay_sweeps.files import DAMAGED_SUFFIX, is_real_folder, remove, writer_still_runs
from replay_sweeps.store.states import KINDS, Store

DAY = 24 * 3600.0  # seconds; so long what is put aside stays, and what a process of another host may still be writing


def half_written(store: Store, nobody_writes: bool = False) -> Iterator[Path]:
    """Temporary files and folders of a store, its text aside, whose writers are gone.

    `nobody_writes`: whether no worker is alive, so that those of states and records have no writer.
    """
    root = store.folder
    trees = [tree for kind in KINDS for tree in _folders(root / kind)]
    for folder in [root, *(root / name for name in ("studies", "numerics", "timings", "claims")), *trees]:
        for path in _hidden(folder, ".tmp"):
            runs = writer_still_runs(path)
            if (nobody_writes and folder in trees) or runs is False or (runs is None and _is_older_than_a_day(path)):
                yield path


def put_aside_long_ago(store: Store) -> Iterator[Path]:
    """What was put aside as damaged more than a day ago."""
    root = store.folder
    below = [folder for kind in (*KINDS, "text", "text/sampled") for folder in _folders(root / kind)]
    named = [root / name for name in (*KINDS, "studies", "numerics", "timings", "claims", "text", "text/sampled")]
    for folder in [root, *named, *below]:
        yield from (path for path in _hidden(folder, DAMAGED_SUFFIX) if _is_older_than_a_day(path))


def clear_half_written(store: Store) -> None:
    """Remove what processes that are gone left half written."""
    for path in half_written(store):
        remove(path)


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, links aside."""
    if is_real_folder(folder):
        yield from (path for path in sorted(folder.iterdir()) if is_real_folder(path))


def _hidden(folder: Path, suffix: str) -> Iterator[Path]:
    if is_real_folder(folder):
        yield from sorted(folder.glob(f".*{suffix}"))


def _is_older_than_a_day(path: Path) -> bool:
    """By the time of its last change, a rename too. Clocks of hosts may differ by hours, not by a day."""
    try:
        return time.time() - path.lstat().st_ctime > DAY
    except OSError:
        return False
