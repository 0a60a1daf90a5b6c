"""The trash of a store: what the garbage collector drops stays there for a day, where the disk has room for it."""

import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from replay_sweeps.files import is_real_folder, put_aside, remove, temporary_name
from replay_sweeps.store.leftovers import DAY

TRASH = "trash"  # <time>-<random>/<path in the store>: moved back by hand, it is found again


def has_room(store: Path, size: int) -> bool:
    """Whether what is dropped and was dropped, `size` bytes, can stay a while: the disk has as much free beside it."""
    try:
        return shutil.disk_usage(store).free > size
    except OSError:
        return False


def drop(store: Path, paths: Sequence[Path], at_once: bool) -> None:
    """Move files and folders of a store into its trash; those that cannot be moved are removed, and all `at_once`."""
    trash = store / TRASH
    if trash.is_symlink() or (trash.exists() and not trash.is_dir()):
        put_aside(trash)
    batch = trash / f"{int(time.time())}-{uuid.uuid4().hex[:8]}"
    for path in paths:
        if at_once or not _moved(path, batch / path.relative_to(store)):
            hidden = temporary_name(path)  # a folder is there whole or not at all
            remove(hidden if _moved(path, hidden) else path)


def _moved(path: Path, to: Path) -> bool:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
    except OSError:  # a full disk, or a folder of the store that lies on another one
        return False
    return True


def in_trash(store: Path, all_of_it: bool) -> Iterator[Path]:
    """What was dropped more than a day ago, or all that was dropped before."""
    trash = store / TRASH
    for batch in sorted(trash.iterdir()) if is_real_folder(trash) else ():
        dropped_at = batch.name.partition("-")[0]
        if dropped_at.isdigit() and (all_of_it or time.time() - int(dropped_at) > DAY):
            yield batch
