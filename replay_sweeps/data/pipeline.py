"""The steps from sources to token stores, each a look-up of an earlier result first."""

import hashlib
import importlib.metadata
import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.chat_template import ChatTemplate
from replay_sweeps.data.cleaning import CleanText, clean_text
from replay_sweeps.data.encoder import Encoder
from replay_sweeps.data.near_duplicates import near_duplicates, text_hash
from replay_sweeps.data.parallel import process_pool
from replay_sweeps.data.prepared_text import PreparedSource, PreparedText, PreparedTokenizer, tokenizer_fingerprint
from replay_sweeps.data.sources.table_rows import spoken
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
from replay_sweeps.files import fingerprint, folder_made_atomically, recalled, write_record

logger = logging.getLogger(__name__)

CLEAN, SAMPLED, TOKENIZERS, TOKENS = "text", "sampled", "tokenizers", "tokens"  # folders of what is made
VERSION = 2  # raised whenever the same cleaned text would give other tokens
BPE_TRAINING_CHARACTERS = 200_000_000  # byte-level BPE is trained on an even sample of about so much
HALVES = ("selection", "report")


def tokenizer_key(tokenizer: TokenizerConfig, generic_key: str) -> str:
    """A hash of what decides the tokenizer: for BPE its size and training text, else its name or its files."""
    shape: dict[str, Any] = {"stage": "tokenizer", "library": importlib.metadata.version("tokenizers")}
    path = Path(tokenizer.path).expanduser()
    if tokenizer.path == BPE:
        shape |= {"text": generic_key, "vocab_size": tokenizer.vocab_size or DEFAULT_VOCAB_SIZE}
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        shape["files"] = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    else:
        shape["name"] = tokenizer.path
        shape |= {"revision": tokenizer.revision} if tokenizer.revision else {}
    if tokenizer.chat_template is not None:
        shape["chat_template"] = own_template(tokenizer)
    return fingerprint(shape)


def record_path(folder: Path, key: str) -> Path:
    return folder / "records" / f"{key}.json"


def recall(folder: Path, key: str) -> dict[str, Any] | None:
    """The record of an earlier result; None when there is none or it is damaged."""
    return recalled(record_path(folder, key), "a record is damaged and is made again")


class Preparation:
    """The steps of `prepare_text`, each a look-up first."""

    def __init__(self, folder: Path, workers: int, row_length: int) -> None:
        self.folder = folder
        self.workers = workers
        self.row_length = row_length  # tokens: what conversations are packed into

    def run(
        self,
        generic: SourceConfig,
        targets: Sequence[SourceConfig],
        tokenizer: TokenizerConfig,
        pretrained: LoadedTokenizer | None,
        validation_tokens: int,
    ) -> PreparedText:
        with process_pool(self.workers) as pool:
            sources = (generic, *targets)
            texts = [self.text(source, pool) for source in sources]
        stored, model = self.tokenizer(tokenizer, generic, texts[0], pretrained)
        chat = any(source.format == "chat" for source in sources)
        template = ChatTemplate(stored, tokenizer.path) if chat else None
        encoder = Encoder(self.folder / TOKENS, stored, model, template, self.row_length, self.workers)
        trains = [self.train(source, text, encoder) for source, text in zip(sources, texts, strict=True)]
        generic_frequencies = _token_counts(trains[0][0], stored.vocab_size)
        prepared = []
        for source, text, (train, packing) in zip(sources, texts, trains, strict=True):
            halves, removed = self.validation(source, text, texts, encoder, validation_tokens)
            counts = {**_counts(text, removed, train, halves), **packing}
            frequencies = _token_counts(train, stored.vocab_size)
            counts["token_frequency_divergence"] = jensen_shannon_divergence(frequencies, generic_frequencies)
            prepared.append(PreparedSource(source.name, train, halves[0], halves[1], counts))
        return PreparedText(stored, prepared[0], tuple(prepared[1:]))

    def text(self, source: SourceConfig, pool: Executor | None) -> CleanText:
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
        self,
        config: TokenizerConfig,
        source: SourceConfig,
        generic: CleanText,
        pretrained: LoadedTokenizer | None,
    ) -> tuple[PreparedTokenizer, LoadedTokenizer]:
        key = tokenizer_key(config, generic.key)
        record = recall(self.folder, key)
        if record is not None:
            stored = PreparedTokenizer.from_record(record, self.folder)
            try:
                stored.verify()
                files = {file.name: file.read_bytes() for file in stored.path.iterdir()}
                return stored, loaded(files, stored.vocab_size, stored.end_of_text)
            except DamagedFile as error:
                logger.warning("a tokenizer is damaged and is made again: %s", error)
                shutil.rmtree(stored.path, ignore_errors=True)
        if config.path == BPE:
            texts = _sample(generic) if source.format == "text" else map(spoken, _sample(generic))
            model = train_bpe(texts, config.vocab_size or DEFAULT_VOCAB_SIZE, own_template(config))
        else:
            model = pretrained or load_pretrained(config)
        stored = self._store_tokenizer(model)
        write_record(record_path(self.folder, key), stored.to_record(self.folder))
        return stored, model

    def _store_tokenizer(self, model: LoadedTokenizer) -> PreparedTokenizer:

        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in model.files.items()}
        name = tokenizer_fingerprint(checksums, model.vocab_size, model.end_of_text)
        with folder_made_atomically(self.folder / TOKENIZERS / name) as made:
            for file, content in model.files.items():
                (made / file).write_bytes(content)
        return PreparedTokenizer(self.folder / TOKENIZERS / name, model.vocab_size, model.end_of_text, name)

    def _stored(self, key: str, names: Sequence[str]) -> tuple[list[TokenStore], dict[str, Any]] | None:
        """The sound stores of an earlier step with its record; None when one is missing or damaged."""
        record = recall(self.folder, key)
        if record is None:
            return None
        stores = [TokenStore.from_record(record[name], self.folder) for name in names]
        try:
            for store in stores:
                store.verify()
        except DamagedFile as error:
            logger.warning("tokens are damaged and are made again: %s", error)
            return None
        return stores, record

    def train(self, source: SourceConfig, text: CleanText, encoder: Encoder) -> tuple[TokenStore, dict[str, int]]:
        """The training store, and of conversations what became of them."""
        key = fingerprint({"stage": "train", "version": VERSION, "text": text.key, **encoder.shape(source)})
        found = self._stored(key, ["train"])
        if found is not None:
            return found[0][0], found[1].get("packing", {})
        store, packing = encoder.write(source, text.texts("train"))
        record = {"train": store.to_record(self.folder)}
        write_record(record_path(self.folder, key), {**record, "packing": packing} if packing else record)
        return store, packing

    def validation(
        self,
        source: SourceConfig,
        text: CleanText,
        texts: Sequence[CleanText],
        encoder: Encoder,
        validation_tokens: int,
    ) -> tuple[list[TokenStore], dict[str, int]]:
        """The selection and report halves, and how many documents of each were removed."""
        others = sorted({other.key for other in texts})
        shape = {"text": text.key, "others": others, "tokens": validation_tokens, **encoder.shape(source)}
        key = fingerprint({"stage": "validation", "version": VERSION, **shape})
        found = self._stored(key, HALVES)
        if found is not None:
            return found[0], found[1]["removed"]
        stores, removed = [], {}
        for half in HALVES:
            repeated = near_duplicates(text.signatures(half), (other.signatures("train") for other in texts))
            removed[half] = int(repeated.sum())
            if repeated.all():
                raise UserError(_all_removed_line(source, text, half))
            kept = (document for document, drop in zip(text.texts(half), repeated, strict=True) if not drop)
            stores.append(encoder.write(source, kept, f", {half}", validation_tokens)[0])
        record = {half: store.to_record(self.folder) for half, store in zip(HALVES, stores, strict=True)}
        write_record(record_path(self.folder, key), {**record, "removed": removed})
        return stores, removed


def _sample(text: CleanText) -> Iterator[str]:
    """The training documents, or as many of them as hold about BPE_TRAINING_CHARACTERS, chosen by their hashes."""
    share = BPE_TRAINING_CHARACTERS / text.counts["train_characters"]
    for document in text.texts("train"):
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
