"""Rows of tokens: a token store read as rows of one length, with masks of what is learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.data.token_store import BEGINS, LEARNED, TokenStore


@dataclass(frozen=True)
class TokenRows:
    """The whole rows of `length` tokens of an opened store."""

    length: int
    tokens: NDArray[Any]
    flags: NDArray[Any] | None

    @classmethod
    def open(cls, store: TokenStore, length: int) -> "TokenRows":
        """Raises DamagedFile."""
        count = store.rows(length) * length
        flags = store.open_flags()
        shape = (-1, length)
        return cls(length, store.open()[:count].reshape(shape), None if flags is None else flags[:count].reshape(shape))

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, rows: Sequence[int] | NDArray[np.int64] | slice) -> NDArray[np.int64]:
        """The tokens of rows; [rows, length]."""
        return self.tokens[rows].astype(np.int64)

    def parts(self, rows: Sequence[int] | NDArray[np.int64] | slice) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which tokens of rows are learned, and which example of its row each belongs to; [rows, length] both.

        A row of plain text is one example of which everything is learned.
        """
        if self.flags is None:
            shape = self.tokens[rows].shape
            return np.ones(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)
        flags = self.flags[rows]
        return (flags & LEARNED) != 0, np.cumsum((flags & BEGINS) != 0, axis=1, dtype=np.int64)
