"""Writing files so that a reader sees all of them or none: temporary name, sync, rename."""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replay_sweeps.errors import DamagedFile

logger = logging.getLogger(__name__)


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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def folder_made_atomically(final: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `final` on success and removed on failure.

    Where `final` exists by then (another process made the same content), the temporary folder is dropped.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        sync_folder(temporary)
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir():
                raise
        sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal, read in constant memory."""
    with path.open("rb") as file:
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


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises DamagedFile when the content does not match its checksum, FileNotFoundError when there is no file.
    """
    try:
        record = json.loads(path.read_bytes())
        checksum = record.pop("checksum")
    except (ValueError, KeyError, AttributeError) as error:
        raise DamagedFile(f"{path} is not a whole record") from error
    if fingerprint(record) != checksum:
        raise DamagedFile(f"{path} does not match its checksum")
    return record


def recalled(path: Path, damaged: str) -> dict[str, Any] | None:
    """The record at `path`; None when there is none, or when it is damaged, which is warned of in these words."""
    try:
        return read_record(path)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        logger.warning("%s: %s", damaged, error)
        return None
