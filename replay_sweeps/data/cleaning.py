"""The cleaned text of one source: read, without duplicates, split into train and validation, kept compressed."""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from replay_sweeps.config import SourceConfig
from replay_sweeps.data import near_duplicates
from replay_sweeps.data.sources.documents import documents, input_state
from replay_sweeps.data.sources.local_files import open_bytes
from replay_sweeps.data.sources.table_rows import conversation_text
from replay_sweeps.data.text_keys import text_key
from replay_sweeps.errors import DamagedFile, UserError
from replay_sweeps.files import (
    file_checksum,
    folder_made_atomically,
    is_real_folder,
    put_aside,
    read_record,
    remove,
    write_record,
)
from replay_sweeps.parallel import batched, ordered_map

logger = logging.getLogger(__name__)

PARTS = ("train", "selection", "report")
RECORD = "record.json"
BATCH_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class CleanText:
    """A source's documents by part: `train`, and the `selection` and `report` halves of validation."""

    key: str  # hash of all that shaped it
    folder: Path
    counts: dict[str, int]

    def documents(self, part: str) -> Iterator[str]:
        """The documents of a part: train in the source's order, validation halves in the order of their hashes."""
        with open_bytes(self.folder / f"{part}.jsonl.zst") as stream:
            for line in stream:
                yield json.loads(line)

    def signatures(self, part: str) -> near_duplicates.Signatures:
        """The MinHash signatures of a part's documents; [documents, permutations]."""
        path = self.folder / f"{part}.signatures"
        shape = (path.stat().st_size // (4 * near_duplicates.PERMUTATIONS), near_duplicates.PERMUTATIONS)
        return np.memmap(path, dtype="<u4", mode="r", shape=shape) if shape[0] else np.empty(shape, dtype="<u4")


def part_of(text_hash: bytes, validation_fraction: float) -> str:
    """Which part a document belongs to, from the hash of its text alone.

    A larger fraction keeps what a smaller one held out, and each document stays in the same half.
    """
    if int.from_bytes(text_hash[:8]) >= validation_fraction * 2**64:
        return "train"
    return "selection" if text_hash[8] & 1 else "report"


class _PartWriter:
    """Writes the texts and signatures of one part, and counts them."""

    def __init__(self, folder: Path, part: str, stack: ExitStack) -> None:
        import pyarrow

        self._texts = stack.enter_context(pyarrow.output_stream(str(folder / f"{part}.jsonl.zst"), compression="zstd"))
        self._signatures: IO[bytes] = stack.enter_context((folder / f"{part}.signatures").open("wb"))
        self.documents = 0
        self.characters = 0

    def write(self, line: bytes, signature: bytes, characters: int) -> None:
        self._texts.write(line)
        self._signatures.write(signature)
        self.documents += 1
        self.characters += characters


def _with_sketches(
    source: SourceConfig, texts: Iterable[str], pool: Executor | None
) -> Iterator[tuple[str, bytes, Any]]:
    """Each document with the hash of its text and its MinHash, in the order of `texts`."""
    sketch = _sketch_texts if source.format == "text" else _sketch_conversations
    for batch, sketches in ordered_map(pool, sketch, batched(texts, BATCH_CHARACTERS)):
        for text, (text_hash, minhash) in zip(batch, sketches, strict=True):
            yield text, text_hash, minhash


def _sketch_texts(batch: list[str]) -> tuple[list[str], list[tuple[bytes, Any]]]:
    return batch, near_duplicates.sketch(batch)


def _sketch_conversations(batch: list[str]) -> tuple[list[str], list[tuple[bytes, Any]]]:
    return batch, near_duplicates.sketch(list(map(conversation_text, batch)))


def _write_parts(source: SourceConfig, texts: Iterable[str], folder: Path, pool: Executor | None) -> dict[str, int]:
    """Drop duplicates, write the parts of the source's text into `folder`, and return the counts."""
    from tqdm import tqdm

    deduplicator = near_duplicates.Deduplicator()
    read = characters = 0
    held_out: list[tuple[bytes, str, int, int, bytes]] = []  # hash, part, place and length of its line, signature
    spool_path = folder / "validation.jsonl"
    with ExitStack() as stack:
        writers = {part: _PartWriter(folder, part, stack) for part in PARTS}
        bar = stack.enter_context(tqdm(desc=f"reading {source.name}", unit=" documents", disable=None, leave=False))
        spool = stack.enter_context(spool_path.open("w+b"))
        for text, text_hash, minhash in _with_sketches(source, texts, pool):
            read, characters = read + 1, characters + len(text)
            bar.update()
            if not deduplicator.is_new(text_hash, minhash):
                continue
            line = json.dumps(text, ensure_ascii=False).encode() + b"\n"
            signature = np.array(minhash.digest(), dtype="<u4").tobytes()
            part = part_of(text_hash, source.validation_fraction)
            if part == "train":
                writers[part].write(line, signature, len(text))
            else:
                held_out.append((text_hash[8:] + text_hash[:8], part, spool.tell(), len(line), signature))
                spool.write(line)
        for _, part, place, length, signature in sorted(held_out):
            spool.seek(place)
            line = spool.read(length)
            writers[part].write(line, signature, len(json.loads(line)))
    spool_path.unlink()
    counts = {
        "documents": read,
        "characters": characters,
        "exact_duplicates_dropped": deduplicator.exact,
        "near_duplicates_dropped": deduplicator.near,
    }
    for part, writer in writers.items():
        counts |= {f"{part}_documents": writer.documents, f"{part}_characters": writer.characters}
    return counts


def _part_checksums(folder: Path) -> dict[str, str]:
    return {
        path.name: file_checksum(path, follow_link=False) for path in sorted(folder.iterdir()) if path.name != RECORD
    }


def _earlier_clean_text(key: str, folder: Path) -> CleanText | None:
    """The text that was cleaned before, if it is sound; damaged text is removed."""
    if not is_real_folder(folder):
        if os.path.lexists(folder):
            put_aside(folder)
        return None
    try:
        record = read_record(folder / RECORD)
        if _part_checksums(folder) != record["checksums"]:
            raise DamagedFile(f"{folder} does not match its checksums")
    except (DamagedFile, OSError, KeyError, TypeError) as error:
        logger.warning("cleaned text is damaged and is made again: %s", error)
        remove(folder)
        return None
    return CleanText(key, folder, record["counts"])


def clean_text(source: SourceConfig, folder: Path, pool: Executor | None, sampled: Path | None = None) -> CleanText:
    """The cleaned text of a source, made below `folder` or found there; text that a model samples is kept in `sampled`.

    `pool` is the processes to work in, or None for this one. Raises UserError when the source can't be read or has
    too few documents.
    """
    before = input_state(source)
    key = text_key(source)
    final = folder / key
    text = _earlier_clean_text(key, final)
    if text is None:
        with folder_made_atomically(final) as made:
            counts = _write_parts(source, documents(source, pool, sampled), made, pool)
            _check_unchanged(source, before)
            _check_counts(source, counts)
            write_record(made / RECORD, {"counts": counts, "checksums": _part_checksums(made)})
        text = CleanText(key, final, counts)
    _check_counts(source, text.counts)
    return text


def _check_unchanged(source: SourceConfig, before: list[tuple[str, int, int, int, int]]) -> None:
    """Raise UserError where local files were changed while they were read: their key would name another text."""
    after = input_state(source)
    if after != before:
        [name, *_] = min(set(before) ^ set(after))
        raise UserError(f"{source.name}: {name} was changed while it was read; start again once nothing writes to it")


def _check_counts(source: SourceConfig, counts: dict[str, int]) -> None:
    for part in PARTS:
        if not counts[f"{part}_documents"]:
            raise UserError(no_documents_line(source, counts, part))


def no_documents_line(source: SourceConfig, counts: dict[str, int], part: str) -> str:
    """The message for a source without a document in one of its parts: how many there are, and what to do."""
    kept = counts["documents"] - counts["exact_duplicates_dropped"] - counts["near_duplicates_dropped"]
    if not counts["documents"]:
        return f"{source.name}: there is no text"
    what = "training text" if part == "train" else f"the {part} half of validation"
    advice = "give more documents"
    if part == "train":
        advice += ", or lower validation_fraction"
    else:
        advice += ", raise validation_fraction, or lower split_above_characters so that long documents count as several"
    return (
        f"{source.name}: no document for {what}: {kept} different documents of {counts['documents']}, "
        f"validation_fraction={source.validation_fraction}; {advice}"
    )
