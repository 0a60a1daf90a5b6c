"""Token stores: flat memory-mapped files of tokens, named by a hash of their content and verified when opened."""

import hashlib
import os
import stat
import uuid
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import file_checksum, fingerprint, folder_made_atomically, inside, is_real_folder, remove

FILE = "tokens.bin"
FLAGS_FILE = "flags.bin"  # of packed stores: a byte for each token
LEARNED, BEGINS, PADDING = 1, 2, 4  # flags: the token is learned; an example begins; it fills up the row

_verified: set[tuple[str, int, int]] = set()  # path, size and time of change of what this process has verified


def dtype_for(vocab_size: int) -> str:
    """The smallest unsigned type, little-endian, that holds every token of a vocabulary."""
    return "<u2" if vocab_size < 2**16 else "<u4"


def _content_fingerprint(checksums: Sequence[str], dtype: str) -> str:
    content = {"sha256": checksums[0], "dtype": dtype}
    return fingerprint(content if len(checksums) == 1 else {**content, "flags": checksums[1]})


@dataclass(frozen=True)
class TokenStore:
    """Tokens of documents one after another, each followed by an end-of-text token; or, packed, rows of examples.

    Row i of length L is `tokens[i * L : (i + 1) * L]`; L is the reader's choice and not part of the store, except that
    a packed one was made for its L. There each token has a byte of flags.
    """

    fingerprint: str  # hash of the tokens: equal content, equal fingerprint, wherever it came from
    path: Path  # the file itself
    tokens: int
    dtype: str  # "<u2" or "<u4"
    packed: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the store."""
        return (self.path, self.path.with_name(FLAGS_FILE)) if self.packed else (self.path,)

    def rows(self, row_length: int) -> int:
        """How many whole rows of `row_length` tokens there are."""
        return self.tokens // row_length

    def verify(self) -> None:
        """Raise DamagedFile unless the files are there, whole, and have the content that the fingerprint names.

        The content is read once in a process; later calls look at the files' sizes and times of change only.
        """
        sizes = (np.dtype(self.dtype).itemsize, 1)
        seen = {self._file_state(file, size) for file, size in zip(self.files, sizes, strict=False)}
        if seen <= _verified:
            return
        checksums = [file_checksum(file, follow_link=False) for file in self.files]
        if _content_fingerprint(checksums, self.dtype) != self.fingerprint:
            raise DamagedFile(f"{self.path} does not match its checksum")
        _verified.update(seen)

    def _file_state(self, file: Path, bytes_per_token: int) -> tuple[str, int, int]:
        try:
            state = file.lstat()
        except OSError as error:
            raise DamagedFile(f"{file} is missing") from error
        if not stat.S_ISREG(state.st_mode):
            raise DamagedFile(f"{file} is not a file")
        if state.st_size != self.tokens * bytes_per_token:
            raise DamagedFile(f"{file} has {state.st_size} bytes, not those of {self.tokens} tokens")
        return str(file), state.st_size, state.st_mtime_ns

    def open(self) -> NDArray[np.unsignedinteger[Any]]:
        """The tokens as a read-only memory map; [tokens]. Raises DamagedFile."""
        return self._memory_map(self.path, self.dtype)

    def open_flags(self) -> NDArray[np.unsignedinteger[Any]] | None:
        """The flags of a packed store's tokens as a read-only memory map; [tokens], uint8. Raises DamagedFile."""
        return self._memory_map(self.files[1], "u1") if self.packed else None

    def _memory_map(self, file: Path, dtype: str) -> NDArray[np.unsignedinteger[Any]]:
        self.verify()
        return np.memmap(file, dtype=dtype, mode="r") if self.tokens else np.empty(0, dtype=dtype)

    def to_record(self, folder: Path) -> dict[str, Any]:
        """The store as JSON values, its path relative to `folder`."""
        path = self.path.relative_to(folder).as_posix()
        record = {"fingerprint": self.fingerprint, "path": path, "tokens": self.tokens, "dtype": self.dtype}
        return {**record, "packed": True} if self.packed else record

    @classmethod
    def from_record(cls, record: dict[str, Any], folder: Path) -> "TokenStore":
        """The store that `to_record` described. Raises DamagedFile for a record of another shape, and where its path
        leads out of the folder."""
        try:
            is_sound = (
                record["dtype"] in ("<u2", "<u4") and record["tokens"] >= 0 and isinstance(record["fingerprint"], str)
            )
            path = inside(folder, record["path"])
        except (KeyError, TypeError) as error:
            raise DamagedFile("the record of a token store has another shape") from error
        if not is_sound:
            raise DamagedFile(f"the record of {path} has another shape")
        return cls(record["fingerprint"], path, record["tokens"], record["dtype"], record.get("packed", False))


def write_token_store(folder: Path, batches: Iterable[NDArray[Any]], dtype: str) -> TokenStore:
    """Write the tokens of `batches` below `folder` and return the store, in constant memory.

    The store's folder appears whole or not at all. A store of the same content that is already there is kept if it
    is sound, replaced if it is damaged.
    """
    return _write_store(folder, ((batch,) for batch in batches), (FILE,), (dtype,))


def write_packed_store(folder: Path, rows: Iterable[tuple[NDArray[Any], NDArray[Any]]], dtype: str) -> TokenStore:
    """As `write_token_store`, for tokens with their flags."""
    return _write_store(folder, rows, (FILE, FLAGS_FILE), (dtype, "u1"))


def _write_store(
    folder: Path, parts: Iterable[tuple[NDArray[Any], ...]], names: Sequence[str], dtypes: Sequence[str]
) -> TokenStore:
    folder.mkdir(parents=True, exist_ok=True)
    partial = [folder / f".{uuid.uuid4().hex}.tmp" for _ in names]
    digests, tokens = [hashlib.sha256() for _ in names], 0
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in partial]
            for part in parts:
                for values, dtype, file, digest in zip(part, dtypes, files, digests, strict=True):
                    content = np.ascontiguousarray(values, dtype=dtype).tobytes()
                    file.write(content)
                    digest.update(content)
                tokens += len(part[0])
        name = _content_fingerprint([digest.hexdigest() for digest in digests], dtypes[0])
        store = TokenStore(name, folder / name / FILE, tokens, dtypes[0], packed=len(names) > 1)
        place = store.path.parent
        if os.path.lexists(place) and not (is_real_folder(place) and is_sound(store)):
            remove(place)
        with folder_made_atomically(place) as made:
            for path, file_name in zip(partial, names, strict=True):
                path.rename(made / file_name)
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
    return store


def is_sound(store: TokenStore) -> bool:
    """Whether the store can be opened."""
    try:
        store.verify()
    except DamagedFile:
        return False
    return True
