"""Reading what a store holds: records of an expected shape, the names in a folder, the sizes of what is kept."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import is_plain_name, is_real_folder, may_not_read, put_aside, read_record, remove

T = TypeVar("T")


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    found = path.rglob("*") if is_real_folder(path) else [path]
    sizes = []
    for file in found:
        with suppress(OSError):  # what vanishes meanwhile
            sizes.append(file.lstat().st_size if not is_real_folder(file) else 0)
    return sum(sizes)


def visible_names(folder: Path) -> list[str]:
    """The names in a folder that are not hidden; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise may_not_read(folder, error) from error


def remove_record(file: Path) -> None:
    """Make way for a record: a damaged one is removed, what is no file is put aside."""
    if is_real_folder(file):
        put_aside(file)
    else:
        remove(file)


def read_shaped(file: Path, shape: Callable[[dict[str, Any]], T]) -> T:
    """A record in the shape that is expected of it. Raises DamagedFile, FileNotFoundError."""
    record = read_record(file)
    try:
        return shape(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFile(f"{file} is a record of another shape") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The record in a state's folder: its files with their checksums, and whether training can go on from it."""
    if not is_real_folder(folder):
        if os.path.lexists(folder):
            raise DamagedFile(f"{folder} is not a folder")
        raise FileNotFoundError(folder)

    def shape(record: dict[str, Any]) -> dict[str, Any]:
        files = record["files"]
        if not (files and all(map(is_plain_name, files)) and isinstance(record["resumable"], bool)):
            raise ValueError("not a state")
        return record

    try:
        return read_shaped(folder / "state.json", shape)
    except FileNotFoundError as error:
        if not folder.is_dir():  # another process dropped it just now
            raise
        raise DamagedFile(f"{folder} is not a whole state") from error
