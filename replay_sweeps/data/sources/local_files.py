"""Documents of local files: plain text, JSON lines and parquet, each as it is or compressed."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from replay_sweeps.data.sources.table_rows import TableReader, TextColumn
from replay_sweeps.errors import UserError, one_line

PLAIN = (".txt", ".md", ".rst", ".py")
LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet",)
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}

MOST_CHECKED = 20  # parquet files that are opened before any work; the rest are checked when read
_TOO_DEEP = "nested too deeply to be read; remove it or write it flat"
BLOCK = 16_000_000  # characters of plain text that are held at once


def _format_ending(path: Path) -> str:
    """The ending that says how to read a file, without that of its compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_one_document(path: Path) -> bool:
    """Whether a readable file is a document as a whole (very long ones are read in several)."""
    return _format_ending(path) in PLAIN


def endings(reader: TableReader) -> tuple[str, ...]:
    """The endings of the files that can be read; a file of plain text holds no conversation."""
    return (*PLAIN, *LINES, *PARQUET) if isinstance(reader, TextColumn) else (*LINES, *PARQUET)


def readable_files(path: Path, reader: TableReader) -> list[tuple[str, Path]]:
    """The file, or the readable files below a folder with their relative names, sorted; hidden ones are left out.

    Raises UserError where the folder cannot be looked through, or a name cannot be written down.
    """
    try:
        files = _readable_files(path, endings(reader))
    except OSError as error:
        raise UserError(f"{error.filename or path}: can't be read ({error.strerror}); give text that stays") from error
    for name, file in files:
        if not name.isascii() and name != name.encode(errors="replace").decode():
            raise UserError(f"{str(file)!r}: the name is not UTF-8; rename the file")
    return files


def _readable_files(path: Path, readable: tuple[str, ...]) -> list[tuple[str, Path]]:
    if path.is_file():
        return [(path.name, path)] if _format_ending(path) in readable else []
    files = []
    for file in path.rglob("*"):
        inside = file.relative_to(path)
        if (
            _format_ending(file) in readable
            and file.is_file()
            and not any(part.startswith(".") for part in inside.parts)
        ):
            files.append((inside.as_posix(), file))
    return sorted(files)


def what_is_readable(reader: TableReader) -> str:
    """The endings that can be read, for messages."""
    return f"{' '.join(endings(reader))}, or one of these with {' or '.join(COMPRESSED)}"


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, uncompressed; a compressed file that ends too early raises OSError when read."""
    compression = COMPRESSED.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression=compression))


def _open_text(path: Path) -> IO[str]:
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="replace")


def _plain_documents(path: Path) -> Iterator[str]:
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


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of JSON lines, or of a file that is one JSON array, each with its place for messages."""
    with _open_text(path) as stream:
        first = stream.readline()
        if _format_ending(path) == ".json" and first.lstrip().startswith("["):
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
                except RecursionError as error:
                    raise UserError(f"{path}, line {number}: {_TOO_DEEP}") from error
                yield f"{path}, line {number}", row
            number, line = number + 1, stream.readline()


def _json_documents(path: Path, reader: TableReader) -> Iterator[str]:
    for place, row in _json_rows(path):
        try:
            document = reader.document(row, place)
        except RecursionError as error:
            raise UserError(f"{place}: {_TOO_DEEP}") from error
        if document:
            yield document


def _open_parquet(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(io.BytesIO(open_bytes(path).read()) if path.suffix in COMPRESSED else path)


def _parquet_documents(path: Path, reader: TableReader) -> Iterator[str]:
    with _open_parquet(path) as file:
        missing = _missing_columns(path, file, reader)
        if missing:
            raise UserError(*missing)
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=list(reader.columns)):
            for row in batch.to_pylist():
                number += 1
                if document := reader.document(row, f"{path}, row {number}"):
                    yield document


def _missing_columns(path: Path, file: Any, reader: TableReader) -> list[str]:
    names = file.schema_arrow.names
    return [
        f"{path}: no column {column!r}; there are: {', '.join(names)}"
        for column in reader.columns
        if column not in names
    ]


def _documents_of_file(path: Path, reader: TableReader) -> Iterator[str]:
    ending = _format_ending(path)
    if ending in PLAIN:
        return _plain_documents(path)
    return _json_documents(path, reader) if ending in LINES else _parquet_documents(path, reader)


def documents(path: Path, reader: TableReader) -> Iterator[str]:
    """The documents of a file or of the readable files below a folder.

    Raises UserError for a file that can't be read to its end, for a missing column, and for a bad row.
    """
    for _, file in readable_files(path, reader):
        try:
            yield from _documents_of_file(file, reader)
        except (OSError, ValueError) as error:  # pyarrow's and json's errors are among these
            raise UserError(f"{file}: can't be read: {one_line(error, most=None)}") from error
        except RecursionError as error:
            raise UserError(f"{file}: {_TOO_DEEP}") from error


def check(path: Path, reader: TableReader) -> list[str]:
    """What is wrong with a path, one line each: missing, nothing readable, not what its ending says, no such column."""
    if not path.exists():
        return [f"{path} does not exist"]
    try:
        files = readable_files(path, reader)
    except UserError as error:
        return list(error.problems)
    if not files:
        kind = "has no file that ends" if path.is_dir() else "does not end"
        return [f"{path} {kind} in {what_is_readable(reader)}"]
    tables = [file for _, file in files if file.suffix.lower() in PARQUET]
    problems = [problem for file in tables[:MOST_CHECKED] for problem in _check_parquet(file, reader)]
    if _format_ending(files[0][1]) in LINES:
        problems += _check_first_row(files[0][1], reader)
    return problems[:5]


def _check_parquet(path: Path, reader: TableReader) -> list[str]:
    try:
        return _missing_columns(path, _open_parquet(path), reader)
    except (OSError, ValueError):
        return [f"{path} is not a parquet file"]


def _check_first_row(path: Path, reader: TableReader) -> list[str]:
    try:
        next(_json_documents(path, reader), None)
    except UserError as error:
        return list(error.problems)
    except (OSError, ValueError) as error:
        return [f"{path}: can't be read: {one_line(error, most=None)}"]
    except RecursionError:
        return [f"{path}: {_TOO_DEEP}"]
    return []
