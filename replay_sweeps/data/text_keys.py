"""What text a study asks for, and the keys of what is made of it: hashes of all that decides a result.

A key is made without reading text, and names the record of the result, so that the result is found again.
"""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data import near_duplicates
from replay_sweeps.data.sources.documents import input_fingerprint
from replay_sweeps.data.tokenizers import BPE, DEFAULT_VOCAB_SIZE, own_template
from replay_sweeps.files import fingerprint

CLEANING_VERSION = 1  # raised whenever the same documents would be cleaned or split otherwise
TOKENS_VERSION = 2  # raised whenever the same cleaned text would give other tokens


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """The text of a study before it is prepared: everything that decides the result, and the folder it goes to."""

    generic: SourceConfig
    targets: tuple[SourceConfig, ...]
    tokenizer: TokenizerConfig
    folder: Path
    validation_tokens: int  # of each half of a source's validation text, at most
    row_length: int  # tokens: what conversations are packed into; other text does not depend on it

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """The generic source, then the targets."""
        return self.generic, *self.targets

    @property
    def has_conversations(self) -> bool:
        """Whether any source holds conversations, which need a chat template and are packed."""
        return any(source.format == "chat" for source in self.sources)


def text_key(source: SourceConfig) -> str:
    """The key of a source's cleaned text."""
    return fingerprint(
        {
            "version": CLEANING_VERSION,
            "input": input_fingerprint(source),
            "validation_fraction": source.validation_fraction,
            "duplicates": near_duplicates.method_version(),
        }
    )


def tokenizer_key(tokenizer: TokenizerConfig, generic_key: str) -> str:
    """The key of a tokenizer: for BPE its size and training text, else its name or its files."""
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


def train_key(text: str, encoding: dict[str, Any]) -> str:
    """The key of a training store, from the key of its cleaned text and what else shapes its tokens."""
    return fingerprint({"stage": "train", "version": TOKENS_VERSION, "text": text, **encoding})


def validation_key(text: str, trained: Iterable[str], tokens: int, encoding: dict[str, Any]) -> str:
    """The key of a source's two validation halves; `trained`: the keys of the texts that they must not repeat."""
    shape = {"text": text, "others": sorted(set(trained)), "tokens": tokens, **encoding}
    return fingerprint({"stage": "validation", "version": TOKENS_VERSION, **shape})


def study_key(request: TextRequest) -> str:
    """The key of all that is prepared for a request."""
    texts = [[source.name, text_key(source)] for source in request.sources]
    shape: dict[str, Any] = {
        "tokenizer": tokenizer_key(request.tokenizer, texts[0][1]),
        "validation_tokens": request.validation_tokens,
    }
    if request.has_conversations:
        shape["row_length"] = request.row_length
    return fingerprint({"stage": "study", "version": TOKENS_VERSION, "texts": texts, **shape})
