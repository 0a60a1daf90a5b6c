"""The typed schema of a run's configuration: names, types, units and checks. Values live in `conf/`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SourceConfig:
    """Where a text comes from; one document is one training document."""

    name: str
    kind: str  # hub, local, installed_documentation, sympy, standard_library
    path: str | None = None  # local: a file or folder; hub: the data set's id
    subset: str | None = None  # hub: the data set's configuration
    split: str = "train"
    text_column: str = "text"
    max_documents: int | None = None
    validation_fraction: float = 0.05  # share of documents held out, chosen by a hash of their text
    split_above_characters: int = 20_000  # longer documents are cut at paragraphs before anything else happens
    repeat: bool = False  # generic text only: rows may be seen more than once when there are too few


@dataclass(frozen=True)
class TokenizerConfig:
    """A Hugging Face tokenizer by name or path, or `bpe`: byte-level BPE trained on the generic text."""

    path: str = "bpe"
    vocab_size: int | None = None  # bpe only
