"""Documents of local files: plain text, JSON lines and parquet, each as it is or compressed."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from replay_sweeps.errors import UserError

logger = logging.getLogger(__name__)

PLAIN = (".txt", ".md", ".rst", ".py")
LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet",)
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}

MOST_CHECKED = 20  # parquet files that are opened before any work; the rest are checked when read
BLOCK = 16_000_000  # characters of plain text that are held at once


def _ending(path: Path) -> str:
    """The ending that says how to read a file, without that of its compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def readable(path: Path) -> bool:
    """Whether the file's ending is one that can be read."""
    return _ending(path) in PLAIN + LINES + PARQUET


def readable_files(path: Path) -> list[tuple[str, Path]]:
    """The file, or the readable files below a folder with their relative names, sorted; hidden ones are left out."""
    if path.is_file():
        return [(path.name, path)] if readable(path) else []
    found = []
    for file in path.rglob("*"):
        inside = file.relative_to(path)
        if readable(file) and file.is_file() and not any(part.startswith(".") for part in inside.parts):
            found.append((inside.as_posix(), file))
    return sorted(found)


def what_is_readable() -> str:
    """The endings that can be read, for messages."""
    return f"{' '.join(PLAIN + LINES + PARQUET)}, or one of these with {' or '.join(COMPRESSED)}"


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, uncompressed; a compressed file that ends too early raises OSError when read."""
    compression = COMPRESSED.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression=compression))


def _open_text(path: Path) -> IO[str]:
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="replace")


def _plain(path: Path) -> Iterator[str]:
    """The file as one document, or in blocks that end at a paragraph when it is very long."""
    with _open_text(path) as stream:
        rest = ""
        while block := stream.read(BLOCK):
            rest += block
            if len(rest) > BLOCK:
                at = rest.rfind("\n\n")
                at = at if at > 0 else BLOCK
                yield rest[:at]
                rest = rest[at:]
        yield rest


def _text_of(row: Any, column: str, place: str) -> str | None:
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected a JSON object with a column {column!r}, found {type(row).__name__}")
    if column not in row:
        raise UserError(f"{place}: no column {column!r}; there are: {', '.join(row) or 'none'}")
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise UserError(f"{place}: column {column!r} holds {type(text).__name__}, not text")
    return text


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of JSON lines, or of a file that is one JSON array, each with its place for messages."""
    with _open_text(path) as stream:
        first = stream.readline()
        if _ending(path) == ".json" and first.lstrip().startswith("["):
            rows = json.loads(first + stream.read())
            yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
            return
        number, line = 1, first
        while line:
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{path}, line {number}: not JSON ({error})") from error
                yield f"{path}, line {number}", row
            number, line = number + 1, stream.readline()


def _json(path: Path, column: str) -> Iterator[str]:
    for place, row in _json_rows(path):
        if text := _text_of(row, column, place):
            yield text


def _open_parquet(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(io.BytesIO(open_bytes(path).read()) if path.suffix in COMPRESSED else path)


def _parquet(path: Path, column: str) -> Iterator[str]:
    with _open_parquet(path) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise UserError(f"{path}: no column {column!r}; there are: {', '.join(names)}")
        for batch in file.iter_batches(batch_size=1024, columns=[column]):
            for text in batch.column(0).to_pylist():
                if text:
                    yield _text_of({column: text}, column, str(path)) or ""


def _documents_of_file(path: Path, column: str) -> Iterator[str]:
    ending = _ending(path)
    if ending in PLAIN:
        return _plain(path)
    return _json(path, column) if ending in LINES else _parquet(path, column)


def documents(path: Path, column: str) -> Iterator[str]:
    """The documents of a file or of the readable files below a folder.

    Raises UserError for a file that can't be read to its end and for a missing column.
    """
    for _, file in readable_files(path):
        try:
            yield from _documents_of_file(file, column)
        except (OSError, ValueError) as error:  # pyarrow's and json's errors are among these
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{file}: can't be read: {reason}") from error


def check(path: Path, column: str) -> list[str]:
    """What is wrong with a path, one line each: missing, nothing readable, not what its ending says, no such column."""
    if not path.exists():
        return [f"{path} does not exist"]
    files = readable_files(path)
    if not files:
        kind = "has no file that ends" if path.is_dir() else "does not end"
        return [f"{path} {kind} in {what_is_readable()}"]
    tables = [file for _, file in files if file.suffix.lower() in PARQUET]
    problems = [problem for file in tables[:MOST_CHECKED] for problem in _check_parquet(file, column)]
    if _ending(files[0][1]) in LINES:
        problems += _check_first_row(files[0][1], column)
    return problems[:5]


def _check_parquet(path: Path, column: str) -> list[str]:
    try:
        names = _open_parquet(path).schema_arrow.names
    except (OSError, ValueError):
        return [f"{path} is not a parquet file"]
    return [] if column in names else [f"{path}: no column {column!r}; there are: {', '.join(names)}"]


def _check_first_row(path: Path, column: str) -> list[str]:
    try:
        next(_json(path, column), None)
    except UserError as error:
        return list(error.problems)
    except (OSError, ValueError) as error:
        return [f"{path}: can't be read: {(str(error).splitlines() or [''])[0]}"]
    return []
