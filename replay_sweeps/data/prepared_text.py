"""Prepared text: the tokenizer and the token stores of a study, as frozen values with a record in JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import file_checksum, fingerprint, inside, is_plain_name, is_real_folder

TOKENIZERS = "tokenizers"  # the folder of all tokenizers, below that of all text


@dataclass(frozen=True)
class PreparedTokenizer:
    """A tokenizer in a folder that `AutoTokenizer.from_pretrained` reads."""

    path: Path
    vocab_size: int  # tokens; one more than the largest
    end_of_text: int
    fingerprint: str  # hash of its files and its end-of-text token

    def verify(self) -> None:
        """Raise DamagedFile unless the files are those that the fingerprint names."""
        if not is_real_folder(self.path):
            raise DamagedFile(f"{self.path} is missing")
        try:
            checksums = {file.name: file_checksum(file, follow_link=False) for file in self.path.iterdir()}
        except OSError as error:
            raise DamagedFile(f"{self.path} is missing") from error
        if tokenizer_fingerprint(checksums, self.vocab_size, self.end_of_text) != self.fingerprint:
            raise DamagedFile(f"{self.path} does not match its checksum")

    def to_record(self, folder: Path) -> dict[str, Any]:
        """The tokenizer as JSON values, its path relative to `folder`."""
        return {
            "path": self.path.relative_to(folder).as_posix(),
            "vocab_size": self.vocab_size,
            "end_of_text": self.end_of_text,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any], folder: Path) -> "PreparedTokenizer":
        """The tokenizer that `to_record` described. Raises DamagedFile where it lies elsewhere than tokenizers do: a
        damaged one is removed."""
        if not is_plain_name(record["fingerprint"]) or record["path"] != f"{TOKENIZERS}/{record['fingerprint']}":
            raise DamagedFile(f"the path {record['path']!r} is not that of a tokenizer")
        path = inside(folder, record["path"])
        return cls(path, record["vocab_size"], record["end_of_text"], record["fingerprint"])


def tokenizer_fingerprint(checksums: dict[str, str], vocab_size: int, end_of_text: int) -> str:
    """A hash of a tokenizer's files (SHA-256 by name) and of how it is used."""
    return fingerprint({"files": checksums, "vocab_size": vocab_size, "end_of_text": end_of_text})


@dataclass(frozen=True)
class PreparedSource:
    """One source's tokens: what to train on, and two fixed halves to validate on."""

    name: str
    train: TokenStore
    selection: TokenStore  # for choosing among runs
    report: TokenStore  # for the losses that are reported
    # Documents, characters and tokens by what became of them; token_frequency_divergence: Jensen-Shannon divergence,
    # nats, between the token frequencies of this and the generic training text.
    counts: dict[str, float]

    @property
    def stores(self) -> tuple[TokenStore, TokenStore, TokenStore]:
        """The three stores."""
        return self.train, self.selection, self.report

    def to_record(self, folder: Path) -> dict[str, Any]:
        """The source as JSON values, its paths relative to `folder`."""
        return {
            "name": self.name,
            "train": self.train.to_record(folder),
            "selection": self.selection.to_record(folder),
            "report": self.report.to_record(folder),
            "counts": self.counts,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any], folder: Path) -> "PreparedSource":
        """The source that `to_record` described."""
        train, selection, report = (
            TokenStore.from_record(record[part], folder) for part in ("train", "selection", "report")
        )
        return cls(record["name"], train, selection, report, record["counts"])


@dataclass(frozen=True)
class PreparedText:
    """All the text of a study as tokens."""

    tokenizer: PreparedTokenizer
    generic: PreparedSource
    targets: tuple[PreparedSource, ...]

    @property
    def sources(self) -> tuple[PreparedSource, ...]:
        """The generic source, then the targets."""
        return self.generic, *self.targets

    def verify(self) -> None:
        """Raise DamagedFile for the first store or tokenizer whose content is not what was written."""
        self.tokenizer.verify()
        for source in self.sources:
            for store in source.stores:
                store.verify()

    def exists(self) -> bool:
        """Whether every file is there, its content not looked at."""
        files = [file for source in self.sources for store in source.stores for file in store.files]
        return self.tokenizer.path.is_dir() and all(file.is_file() for file in files)

    def to_record(self, folder: Path) -> dict[str, Any]:
        """Everything as JSON values, paths relative to `folder`."""
        return {
            "tokenizer": self.tokenizer.to_record(folder),
            "generic": self.generic.to_record(folder),
            "targets": [target.to_record(folder) for target in self.targets],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any], folder: Path) -> "PreparedText":
        """What `to_record` described. Raises DamagedFile for a record of another shape, or one that leads elsewhere."""
        try:
            return cls._from_record(record, folder)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFile("the record of a text has another shape") from error

    @classmethod
    def _from_record(cls, record: dict[str, Any], folder: Path) -> "PreparedText":
        return cls(
            PreparedTokenizer.from_record(record["tokenizer"], folder),
            PreparedSource.from_record(record["generic"], folder),
            tuple(PreparedSource.from_record(target, folder) for target in record["targets"]),
        )


@dataclass(frozen=True)
class TextFingerprints:
    """The fingerprints of a source's three token stores: what a state's key says of its text."""

    train: str
    selection: str
    report: str
