"""Token stores: one flat memory-mapped file of tokens, named by a hash of its content and verified when opened."""

import hashlib
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import file_checksum, fingerprint, folder_made_atomically

FILE = "tokens.bin"

_verified: set[tuple[str, int, int]] = set()  # path, size and time of change of what this process has verified


def dtype_for(vocab_size: int) -> str:
    """The smallest unsigned type, little-endian, that holds every token of a vocabulary."""
    return "<u2" if vocab_size < 2**16 else "<u4"


def _content_fingerprint(checksum: str, dtype: str) -> str:
    return fingerprint({"sha256": checksum, "dtype": dtype})


@dataclass(frozen=True)
class TokenStore:
    """Tokens of documents one after another, each followed by an end-of-text token.

    Row i of length L is `tokens[i * L : (i + 1) * L]`; L is the reader's choice and not part of the store.
    """

    fingerprint: str  # hash of the tokens: equal content, equal fingerprint, wherever it came from
    path: Path  # the file itself
    tokens: int
    dtype: str  # "<u2" or "<u4"

    def rows(self, row_length: int) -> int:
        """How many whole rows of `row_length` tokens there are."""
        return self.tokens // row_length

    def verify(self) -> None:
        """Raise DamagedFile unless the file is there, whole, and has the content that its fingerprint names.

        The content is read once in a process; later calls look at the file's size and time of change only.
        """
        try:
            state = self.path.stat()
        except OSError as error:
            raise DamagedFile(f"{self.path} is missing") from error
        if state.st_size != self.tokens * np.dtype(self.dtype).itemsize:
            raise DamagedFile(f"{self.path} has {state.st_size} bytes, not those of {self.tokens} tokens")
        seen = (str(self.path), state.st_size, state.st_mtime_ns)
        if seen in _verified:
            return
        if _content_fingerprint(file_checksum(self.path), self.dtype) != self.fingerprint:
            raise DamagedFile(f"{self.path} does not match its checksum")
        _verified.add(seen)

    def open(self) -> NDArray[np.unsignedinteger[Any]]:
        """The tokens as a read-only memory map; [tokens]. Raises DamagedFile."""
        self.verify()
        if not self.tokens:
            return np.empty(0, dtype=self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r")

    def to_record(self, folder: Path) -> dict[str, Any]:
        """The store as JSON values, its path relative to `folder`."""
        path = self.path.relative_to(folder).as_posix()
        return {"fingerprint": self.fingerprint, "path": path, "tokens": self.tokens, "dtype": self.dtype}

    @classmethod
    def from_record(cls, record: dict[str, Any], folder: Path) -> "TokenStore":
        """The store that `to_record` described."""
        return cls(record["fingerprint"], folder / record["path"], record["tokens"], record["dtype"])


def write_token_store(folder: Path, batches: Iterable[NDArray[Any]], dtype: str) -> TokenStore:
    """Write the tokens of `batches` below `folder` and return the store, in constant memory.

    The store's folder appears whole or not at all. A store of the same content that is already there is kept if it
    is sound, replaced if it is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{uuid.uuid4().hex}.tmp"
    digest, tokens = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for batch in batches:
                content = np.ascontiguousarray(batch, dtype=dtype).tobytes()
                file.write(content)
                digest.update(content)
                tokens += len(batch)
        name = _content_fingerprint(digest.hexdigest(), dtype)
        store = TokenStore(name, folder / name / FILE, tokens, dtype)
        if store.path.parent.exists() and not is_sound(store):
            shutil.rmtree(store.path.parent, ignore_errors=True)
        with folder_made_atomically(store.path.parent) as made:
            partial.rename(made / FILE)
    finally:
        partial.unlink(missing_ok=True)
    return store


def is_sound(store: TokenStore) -> bool:
    """Whether the store can be opened."""
    try:
        store.verify()
    except DamagedFile:
        return False
    return True
