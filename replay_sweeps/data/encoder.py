"""From documents to token stores: texts one after another, conversations packed into rows."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.chat_template import ChatTemplate
from replay_sweeps.data.packing import RowPacker
from replay_sweeps.data.prepared_text import PreparedTokenizer
from replay_sweeps.data.token_store import TokenStore, dtype_for, write_packed_store, write_token_store
from replay_sweeps.data.tokenizers import LoadedTokenizer, encode
from replay_sweeps.errors import UserError

logger = logging.getLogger(__name__)

MOST_CUT = 0.05  # of the conversations; where more are cut, the line is a warning
SAMPLED_DOCUMENTS = 32  # at least so many documents make a validation half, where there are as many
SHORTEST_SAMPLE = 256  # tokens


@dataclass(frozen=True)
class Encoder:
    """Writes token stores below `folder`; conversations need a `template`, and are packed into rows."""

    folder: Path
    stored: PreparedTokenizer
    model: LoadedTokenizer
    template: ChatTemplate | None
    row_length: int  # tokens
    workers: int

    def shape(self, source: SourceConfig) -> dict[str, Any]:
        """What shapes the tokens of a source besides its text."""
        shape: dict[str, Any] = {"tokenizer": self.stored.fingerprint}
        return shape if source.format == "text" else {**shape, "row_length": self.row_length}

    def write(
        self, source: SourceConfig, documents: Iterator[str], part: str = "", limit: int | None = None
    ) -> tuple[TokenStore, dict[str, int]]:
        """Write a part's documents, at most `limit` tokens; for conversations also count what became of them.

        Raises UserError where no conversation has anything to learn from.
        """
        title, dtype = f"tokenising {source.name}{part}", dtype_for(self.stored.vocab_size)
        if source.format == "text":
            batches = encode(self.model, documents, self.workers, title)
            sample = batches if limit is None else sample_of_documents(batches, limit, self.stored.end_of_text)
            return write_token_store(self.folder, sample, dtype), {}
        assert self.template
        packer = RowPacker(self.row_length, self.stored.end_of_text)
        rows = packer.pack(self.template.examples(documents, self.workers, title))
        most = None if limit is None else limit // self.row_length
        store = write_packed_store(self.folder, islice(rows, most), dtype)
        if not store.tokens:
            raise UserError(_no_response_line(source, part, packer.counts))
        if not part:
            self._log_packing(source.name, packer.counts)
        return store, packer.counts

    def _log_packing(self, name: str, counts: dict[str, int]) -> None:
        """Log what became of the conversations of a training text."""
        packed, shortened = counts["packed_conversations"], counts["conversations_cut_at_row_end"]
        unanswered = counts["conversations_without_response_dropped"]
        too_late = counts["conversations_cut_before_response_dropped"]
        logger.info(
            "%s: %d conversations in %d rows, %d tokens of responses; %d without a response dropped",
            *(name, packed, counts["packed_rows"], counts["learned_tokens"], unanswered),
        )
        if shortened or too_late:
            level = logging.WARNING if shortened + too_late > MOST_CUT * (packed + too_late) else logging.INFO
            line = "%s: %d conversations are longer than trainer.row_length=%d: %d cut, %d dropped (no response left)"
            logger.log(level, line, name, shortened + too_late, self.row_length, shortened, too_late)


def sample_of_documents(batches: Iterable[NDArray[Any]], limit: int, end_of_text: int) -> Iterator[NDArray[Any]]:
    """At most `limit` tokens from the beginnings of many documents, so that a few long ones do not stand for all.

    Each document gives its first `limit / 32` tokens (at least 256). Where that is not enough, the remainders of the
    documents follow in order. The batches hold whole documents, each ended by `end_of_text`.
    """
    beginning = max(limit // SAMPLED_DOCUMENTS, SHORTEST_SAMPLE)
    missing = limit  # tokens that are still to be found
    remainders: list[NDArray[Any]] = []
    held_back = 0  # tokens of the remainders; more than `limit` are never needed
    for batch in batches:
        for document in np.split(batch, np.flatnonzero(batch == end_of_text) + 1):
            first = document[: min(beginning, missing)]
            yield first
            missing -= len(first)
            if missing <= 0:
                return
            if len(document) > beginning and held_back < limit:
                remainders.append(document[beginning:])
                held_back += len(remainders[-1])
    for remainder in remainders:
        if missing <= 0:
            return
        yield remainder[:missing]
        missing -= len(remainder)


def _no_response_line(source: SourceConfig, part: str, counts: dict[str, int]) -> str:
    without = counts["conversations_without_response_dropped"]
    cut = counts["conversations_cut_before_response_dropped"]
    return (
        f"{source.name}{part}: no conversation to learn from: {without} have no response (a message of role assistant "
        f"after another), {cut} none within trainer.row_length tokens; give other conversations or longer rows"
    )
