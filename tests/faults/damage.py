"""The faults: what may have become of a file or of a folder when a command looks at it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replay_sweeps.files import fingerprint
from tests.faults.world import remove

DEEP = 100_000  # levels; the parser's stack ends far before
HUGE = 300_000_000  # bytes: far more than any record has; the file has holes and takes no room

Damage = Callable[[Path, Path], None]  # (what is damaged, a folder outside of store and output)


def flip(path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 8
    path.write_bytes(content)


def truncate(path: Path, _: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path, _: Path) -> None:
    remove(path)


def folder(path: Path, _: Path) -> None:
    remove(path)
    path.mkdir()
    (path / "inside.txt").write_text("inside\n")


def fifo(path: Path, _: Path) -> None:
    remove(path)
    os.mkfifo(path)


def link_loop(path: Path, _: Path) -> None:
    remove(path)
    path.symlink_to(path.name)


def link_outside(path: Path, outside: Path) -> None:
    is_folder = path.is_dir()
    remove(path)
    path.symlink_to(outside if is_folder else outside / "record.json")


def a_list(path: Path, _: Path) -> None:
    path.write_text("[1, 2, 3]\n")


def deep(path: Path, _: Path) -> None:
    path.write_text('{"checksum": ' + "[" * DEEP + "]" * DEEP + "}\n")


def huge(path: Path, _: Path) -> None:
    os.truncate(path, HUGE)


def unreadable(path: Path, _: Path) -> None:
    path.chmod(0)


def newer(path: Path, _: Path) -> None:
    """As a later version may write it: with a field that this version does not know."""
    _rewrite(path, lambda record: record | {"written_by_a_later_version": {"format": 99}})


def odd_shape(path: Path, _: Path) -> None:
    """Sound by its checksum, but no value is of the type that it should be."""
    _rewrite(path, lambda record: {name: [[]] for name in record})


def path_outside(path: Path, outside: Path) -> None:
    """Sound by its checksum, but each path in it leads out of the store."""
    _rewrite(path, lambda record: _with_paths(record, str(outside)))


def file(path: Path, _: Path) -> None:
    """A file in place of a folder."""
    remove(path)
    path.write_text("no folder\n")


def odd_name(path: Path, _: Path) -> None:
    """A file that nobody can have written, with a name that is no text."""
    os.close(os.open(os.fsencode(path) + b"/odd \xff\n name.json", os.O_CREAT | os.O_WRONLY))


def _rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a JSON record and its checksum; anything else gets bytes in front."""
    try:
        record = json.loads(path.read_bytes())
        record.pop("checksum", None)
    except (ValueError, AttributeError, TypeError):
        path.write_bytes(b"version 99\n" + path.read_bytes())
        return
    changed = change(record)
    path.write_text(json.dumps({**changed, "checksum": fingerprint(changed)}, sort_keys=True) + "\n")


def _with_paths(value: Any, outside: str) -> Any:
    if isinstance(value, dict):
        return {
            name: outside if name in ("path", "output", "store") else _with_paths(item, outside)
            for name, item in value.items()
        }
    return [_with_paths(item, outside) for item in value] if isinstance(value, list) else value


FILE_FAULTS: dict[str, Damage] = {
    "flip": flip,
    "truncate": truncate,
    "empty": empty,
    "missing": missing,
    "folder": folder,
    "FIFO": fifo,
    "link loop": link_loop,
    "link outside": link_outside,
    "list": a_list,
    "deep": deep,
    "huge": huge,
    "unreadable": unreadable,
    "newer version": newer,
    "odd shape": odd_shape,
    "path outside": path_outside,
}
FOLDER_FAULTS: dict[str, Damage] = {
    "file": file,
    "missing": missing,
    "FIFO": fifo,
    "link loop": link_loop,
    "link outside": link_outside,
    "unreadable": unreadable,
    "odd name": odd_name,
}
