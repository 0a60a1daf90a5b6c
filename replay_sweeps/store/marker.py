"""Whether a folder is a store: a file in it says so, and in which version its files are written."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from replay_sweeps.errors import CannotGoOn, DamagedFile, UserError
from replay_sweeps.files import put_aside, read_record, write_record

MARKER, VERSION = "store.json", 1
_OF_OURS = ("numerics/*.json", "studies/*.json", "records/*/*.json", "text/records/*.json", "text/text/*/record.json")


def mark_store(folder: Path) -> None:
    """Say of a folder that it is a store, unless it says so already, or cannot be written: who must write, tells so."""
    file = folder / MARKER
    if _version(file) is None:
        if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
            put_aside(file)
        with suppress(OSError):
            write_record(file, {"version": VERSION})


def check_is_store(folder: Path) -> None:
    """Raise UserError unless a folder is a store, CannotGoOn where a newer version wrote it.

    A store of an older version has no marker, and one in which nothing but text was made yet. It is known by a record
    with our checksum: names of folders alone do not tell a store from a folder of the user's.
    """
    version = _version(folder / MARKER)
    if version is not None and version > VERSION:
        raise CannotGoOn(f"{folder} was written by a newer version of replay-sweeps: use that one")
    if version is None and not any(_records_of_ours(folder)):
        raise UserError(f"{folder} is not a store; give its folder with --store")


def _version(file: Path) -> int | None:
    try:
        version = read_record(file)["version"]
    except (FileNotFoundError, DamagedFile, KeyError):
        return None
    return version if isinstance(version, int) else None


def _records_of_ours(folder: Path) -> Iterator[bool]:
    for pattern in _OF_OURS:
        for file in sorted(folder.glob(pattern)):
            with suppress(OSError, DamagedFile, CannotGoOn):
                read_record(file)
                yield True
