"""Files that a reader sees whole or not at all, records that are checked when read, and paths that stay inside.

Writing: temporary name, sync, rename. Reading: a file may have been damaged, or replaced by a folder, a pipe or a link;
whatever it is, it is told in one line, and nothing is waited for.
"""

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from replay_sweeps.errors import CannotGoOn, DamagedFile
from replay_sweeps.processes import process_mark, still_runs

logger = logging.getLogger(__name__)

MOST_RECORD_BYTES = 256 * 2**20  # a record of a million logged steps has about half of it
DAMAGED_SUFFIX = ".damaged"  # ends the hidden names of what was put aside
_NO_FILE = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR, errno.ENAMETOOLONG)


def temporary_name(final: Path) -> Path:
    """A hidden name beside `final` for what is half written; it names the process, so that what is left is known."""
    return final.with_name(f".{final.name}.{process_mark()}.{uuid.uuid4().hex[:12]}.tmp")


def writer_still_runs(temporary: Path) -> bool | None:
    """Whether the process that made a temporary name still runs; None where that cannot be known here."""
    parts = temporary.name.rsplit(".", 3)
    return still_runs(parts[1]) if len(parts) == 4 else None


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: after a crash the old content or the new is there, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            temporary.replace(path)
        except IsADirectoryError:
            put_aside(path)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def folder_made_atomically(final: Path, before_rename: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `final` on success and removed on failure.

    Where `final` exists by then (another process made the same content), the temporary folder is dropped.
    `before_rename` is called when all is written and durable.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(final)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(temporary)
        before_rename()
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_real_folder(final):
                raise
        sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_real_folder(path: Path) -> bool:
    """Whether there is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_plain_name(name: object) -> bool:
    """Whether a text is the name of one visible file, and so leads nowhere else."""
    return isinstance(name, str) and bool(name) and name[0] != "." and not {"/", "\0"} & set(name)


def inside(folder: Path, name: object) -> Path:
    """The path `folder / name`, where `name` was read from a file.

    Raises DamagedFile where it leads out of `folder`, by itself or through a link, or is `folder` itself.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) and "\0" not in name else ()
    if not parts or ".." in parts or PurePosixPath(*parts).is_absolute():
        raise DamagedFile(f"the path {name!r} does not lie in {folder}")
    path = folder.joinpath(*parts)
    try:
        lies_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise DamagedFile(f"{path} leads nowhere") from error
    if not lies_inside:
        raise DamagedFile(f"{path} is a link that leads out of {folder}")
    return path


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link (not what it leads to), as far as that is possible."""
    if is_real_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s cannot be removed (%s)", path, error.strerror)


def put_aside(path: Path) -> None:
    """Give what is in a file's or folder's place a hidden name beside it, so that nothing that it holds is lost."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{DAMAGED_SUFFIX}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("%s is in the way and cannot be renamed (%s)", path, error.strerror)
        return
    logger.warning("%s was not what belongs there: it is called %s now", path, aside.name)


def may_not_read(path: Path, error: OSError) -> CannotGoOn:
    """The line for a file or folder of a store that belongs to someone else."""
    return CannotGoOn(
        f"{path} may not be read ({error.strerror}): ask its owner for the right to read it, or give another store "
        "with paths.store"
    )


def usable_folder(folder: Path) -> Path:
    """A folder of a store, where something may be written. A file in its place is put aside.

    It may be a link to a folder on another disk: then the user made it. Raises CannotGoOn where that is not there.
    """
    if folder.is_symlink():
        if not folder.is_dir():
            raise CannotGoOn(f"{folder} is a link that leads nowhere: bring back what it leads to, or remove the link")
    elif os.path.lexists(folder) and not folder.is_dir():
        put_aside(folder)
    return folder


@contextmanager
def opened(path: Path, follow_link: bool = False) -> Iterator[io.BufferedReader]:
    """A regular file for reading; nothing is waited for, as a pipe would be.

    Raises DamagedFile for anything that is no regular file, FileNotFoundError, and for a file that may not be read
    CannotGoOn, or PermissionError with `follow_link`.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(path, flags if follow_link else flags | getattr(os, "O_NOFOLLOW", 0))
    except PermissionError as error:
        if follow_link:  # a user's own file: who reads it knows what to say
            raise
        raise may_not_read(path, error) from error
    except OSError as error:
        if error.errno in _NO_FILE:
            raise DamagedFile(f"{path} is not a file ({error.strerror})") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DamagedFile(f"{path} is not a file")
        file = os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
    with file:
        yield file


def read_bounded(path: Path, most: int = MOST_RECORD_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes; raises as `opened` does, DamagedFile for a larger one."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DamagedFile(f"{path} has more than {most:,} bytes")
    return content


def file_checksum(path: Path, follow_link: bool = True) -> str:
    """SHA-256 of a file's bytes, hexadecimal, read in constant memory; raises as `opened` does."""
    with opened(path, follow_link) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, floats as their shortest exact form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value's canonical text, hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON record with a checksum of its own content inside."""
    body = {**record, "checksum": fingerprint(record)}
    write_atomically(path, (json.dumps(body, sort_keys=True, allow_nan=False) + "\n").encode())


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of a record")


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises DamagedFile for anything else, FileNotFoundError when there is no file, CannotGoOn where it may not be read.
    """
    content = read_bounded(path)
    try:
        record = json.loads(content, parse_constant=_refuse)
        checksum = record.pop("checksum") if isinstance(record, dict) else None
        is_sound = checksum is not None and fingerprint(record) == checksum
    except (ValueError, KeyError, RecursionError) as error:
        raise DamagedFile(f"{path} is not a whole record") from error
    if checksum is None:
        raise DamagedFile(f"{path} is not a whole record")
    if not is_sound:
        raise DamagedFile(f"{path} does not match its checksum")
    return dict(record)


def recalled(path: Path, damaged: str) -> dict[str, Any] | None:
    """The record at `path`; None when there is none, or when it is damaged, which is warned of in these words.

    What is no file is put aside, so that the record can be written again.
    """
    try:
        return read_record(path)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        logger.warning("%s: %s", damaged, error)
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            put_aside(path)
        return None
