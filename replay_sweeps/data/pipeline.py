"""The steps from sources to token stores, each a look-up of an earlier result first."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.chat_template import ChatTemplate
from replay_sweeps.data.cleaning import CleanText, clean_text
from replay_sweeps.data.encoder import Encoder
from replay_sweeps.data.near_duplicates import find_near_duplicates, text_hash
from replay_sweeps.data.prepared_text import (
    TOKENIZERS,
    PreparedSource,
    PreparedText,
    PreparedTokenizer,
    tokenizer_fingerprint,
)
from replay_sweeps.data.sources.table_rows import conversation_text
from replay_sweeps.data.text_keys import TextRequest, tokenizer_key, train_key, validation_key
from replay_sweeps.data.token_store import PADDING, TokenStore
from replay_sweeps.data.tokenizers import (
    BPE,
    DEFAULT_VOCAB_SIZE,
    LoadedTokenizer,
    load_pretrained,
    loaded,
    own_template,
    train_bpe,
)
from replay_sweeps.errors import DamagedFile, UserError
from replay_sweeps.files import folder_made_atomically, recalled, remove, write_record
from replay_sweeps.parallel import process_pool

logger = logging.getLogger(__name__)

CLEAN, SAMPLED, TOKENS, RECORDS = "text", "sampled", "tokens", "records"  # folders of what is made
BPE_TRAINING_CHARACTERS = 200_000_000  # byte-level BPE is trained on an even sample of about so much
HALVES = ("selection", "report")


def record_path(folder: Path, key: str) -> Path:
    return folder / RECORDS / f"{key}.json"


def recall(folder: Path, key: str) -> dict[str, Any] | None:
    """The record of an earlier result; None when there is none or it is damaged."""
    return recalled(record_path(folder, key), "a record is damaged and is made again")


class Preparation:
    """The steps of `prepare_text`, each a look-up first."""

    def __init__(self, request: TextRequest, workers: int) -> None:
        self.request = request
        self.folder = request.folder
        self.workers = workers

    def run(self, pretrained: LoadedTokenizer | None) -> PreparedText:
        """All the text of the request; `pretrained`: its tokenizer, where it was loaded already."""
        sources = self.request.sources
        with process_pool(self.workers) as pool:
            texts = [self.clean(source, pool) for source in sources]
        stored, model = self.tokenizer(texts[0], pretrained)
        template = ChatTemplate(stored, self.request.tokenizer.path) if self.request.has_conversations else None
        encoder = Encoder(self.folder / TOKENS, stored, model, template, self.request.row_length, self.workers)
        trains = [self.train(source, text, encoder) for source, text in zip(sources, texts, strict=True)]
        generic_frequencies = _token_counts(trains[0][0], stored.vocab_size)
        prepared = []
        for source, text, (train, packing) in zip(sources, texts, trains, strict=True):
            halves, removed = self.validation(source, text, texts, encoder)
            counts = {**_counts(text, removed, train, halves), **packing}
            frequencies = _token_counts(train, stored.vocab_size)
            counts["token_frequency_divergence"] = jensen_shannon_divergence(frequencies, generic_frequencies)
            prepared.append(PreparedSource(source.name, train, halves[0], halves[1], counts))
        return PreparedText(stored, prepared[0], tuple(prepared[1:]))

    def clean(self, source: SourceConfig, pool: Executor | None) -> CleanText:
        """The cleaned text of a source; its duplicates are dropped."""
        text = clean_text(source, self.folder / CLEAN, pool, self.folder / SAMPLED)
        counts = text.counts
        logger.info(
            "%s: %d documents, %d exact and %d near duplicates dropped",
            source.name,
            counts["documents"],
            counts["exact_duplicates_dropped"],
            counts["near_duplicates_dropped"],
        )
        return text

    def tokenizer(
        self, generic: CleanText, pretrained: LoadedTokenizer | None
    ) -> tuple[PreparedTokenizer, LoadedTokenizer]:
        """The tokenizer as it is stored, and in memory; byte-level BPE is trained on the generic text."""
        config = self.request.tokenizer
        key = tokenizer_key(config, generic.key)
        record = recall(self.folder, key)
        if record is not None:
            try:
                stored = PreparedTokenizer.from_record(record, self.folder)
                try:
                    stored.verify()
                    files = {file.name: file.read_bytes() for file in stored.path.iterdir()}
                    return stored, loaded(files, stored.vocab_size, stored.end_of_text)
                except DamagedFile:
                    remove(stored.path)
                    raise
            except (DamagedFile, KeyError, TypeError) as error:
                logger.warning("a tokenizer is damaged and is made again: %s", error)
        if config.path == BPE:
            sample = _bpe_sample(generic)
            texts = sample if self.request.generic.format == "text" else map(conversation_text, sample)
            model = train_bpe(texts, config.vocab_size or DEFAULT_VOCAB_SIZE, own_template(config))
        else:
            model = pretrained or load_pretrained(config)
        stored = self._store_tokenizer(model)
        write_record(record_path(self.folder, key), stored.to_record(self.folder))
        return stored, model

    def _store_tokenizer(self, model: LoadedTokenizer) -> PreparedTokenizer:
        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in model.files.items()}
        name = tokenizer_fingerprint(checksums, model.vocab_size, model.end_of_text)
        stored = PreparedTokenizer(self.folder / TOKENIZERS / name, model.vocab_size, model.end_of_text, name)
        try:
            stored.verify()
        except DamagedFile:
            remove(stored.path)
        with folder_made_atomically(stored.path) as made:
            for file, content in model.files.items():
                (made / file).write_bytes(content)
        return stored

    def _earlier_stores(self, key: str, names: Sequence[str]) -> tuple[list[TokenStore], dict[str, Any]] | None:
        """The sound stores of an earlier step with its record; None when one is missing or damaged."""
        record = recall(self.folder, key)
        if record is None:
            return None
        try:
            stores = [TokenStore.from_record(record[name], self.folder) for name in names]
            for store in stores:
                store.verify()
        except (DamagedFile, KeyError) as error:
            logger.warning("tokens are damaged and are made again: %s", error)
            return None
        return stores, record

    def train(self, source: SourceConfig, text: CleanText, encoder: Encoder) -> tuple[TokenStore, dict[str, int]]:
        """The training store; for conversations also the counts of what became of them."""
        key = train_key(text.key, encoder.shape(source))
        earlier = self._earlier_stores(key, ["train"])
        if earlier is not None:
            [store], record = earlier
            return store, record.get("packing", {})
        store, packing = encoder.write(source, text.documents("train"))
        record = {"train": store.to_record(self.folder)}
        write_record(record_path(self.folder, key), {**record, "packing": packing} if packing else record)
        return store, packing

    def validation(
        self, source: SourceConfig, text: CleanText, texts: Sequence[CleanText], encoder: Encoder
    ) -> tuple[list[TokenStore], dict[str, int]]:
        """The selection and report halves, and how many documents of each were removed.

        A document is removed where it nearly repeats a training document of any of the `texts`.
        """
        tokens = self.request.validation_tokens
        key = validation_key(text.key, [other.key for other in texts], tokens, encoder.shape(source))
        earlier = self._earlier_stores(key, HALVES)
        if earlier is not None:
            stores, record = earlier
            return stores, record["removed"]
        stores, removed = [], {}
        for half in HALVES:
            repeats = find_near_duplicates(text.signatures(half), (other.signatures("train") for other in texts))
            removed[half] = int(repeats.sum())
            if repeats.all():
                raise UserError(_all_removed_line(source, text, half))
            kept = (document for document, drop in zip(text.documents(half), repeats, strict=True) if not drop)
            stores.append(encoder.write(source, kept, f", {half}", tokens)[0])
        record = {half: store.to_record(self.folder) for half, store in zip(HALVES, stores, strict=True)}
        write_record(record_path(self.folder, key), {**record, "removed": removed})
        return stores, removed


def _bpe_sample(text: CleanText) -> Iterator[str]:
    """The training documents, or as many of them as hold about BPE_TRAINING_CHARACTERS, chosen by their hashes."""
    share = BPE_TRAINING_CHARACTERS / text.counts["train_characters"]
    for document in text.documents("train"):
        if share >= 1 or int.from_bytes(text_hash(document)[8:]) < share * 2**64:
            yield document


def _token_counts(store: TokenStore, vocab_size: int, block: int = 16_000_000) -> NDArray[np.int64]:
    """How often each token occurs, padding aside; [vocab_size]."""
    tokens, flags = store.open(), store.open_flags()
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), block):
        part = tokens[start : start + block]
        if flags is not None:
            part = part[flags[start : start + block] & PADDING == 0]
        counts += np.bincount(part, minlength=vocab_size)
    return counts


def jensen_shannon_divergence(counts: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Jensen-Shannon divergence, in nats, of two frequency counts over the same tokens: 0 when equal, at most log 2."""
    from scipy.special import rel_entr

    first, second = counts / counts.sum(), other / other.sum()
    middle = (first + second) / 2
    return float((rel_entr(first, middle).sum() + rel_entr(second, middle).sum()) / 2)


def _counts(
    text: CleanText, removed: dict[str, int], train: TokenStore, halves: Sequence[TokenStore]
) -> dict[str, float]:
    """The counts of a prepared source: what cleaning counted, and documents and tokens of each part."""
    counts: dict[str, float] = dict(text.counts)
    for half, store in zip(HALVES, halves, strict=True):
        counts[f"{half}_documents"] -= removed[half]
        counts[f"{half}_tokens"] = store.tokens
    counts["validation_documents"] = sum(counts[f"{half}_documents"] for half in HALVES)
    counts["validation_near_duplicates_removed"] = sum(removed.values())
    counts["validation_tokens"] = sum(store.tokens for store in halves)
    counts["train_tokens"] = train.tokens
    return counts


def _all_removed_line(source: SourceConfig, text: CleanText, half: str) -> str:
    documents = text.counts[f"{half}_documents"]
    return (
        f"{source.name}: all {documents} documents of the {half} half of validation nearly repeat training text of the "
        "study; give more documents, or raise validation_fraction"
    )
