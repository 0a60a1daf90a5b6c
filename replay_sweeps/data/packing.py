"""Examples of many lengths packed into rows of one length, whole and one after another."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.data.token_store import BEGINS, LEARNED, PADDING

MOST_OPEN = 64  # rows that are filled at the same time
Row = tuple[NDArray[Any], NDArray[np.uint8]]  # tokens and flags


@dataclass(frozen=True)
class Example:
    """A conversation in tokens, read without anything before it; which tokens are learned (the first never is)."""

    tokens: NDArray[Any]
    learned: NDArray[np.bool_]


@dataclass
class RowPacker:
    """Packs examples into rows of `row_length` tokens and counts what became of them.

    Each example goes into the fullest of the open rows that has room for it (best fit), so that rows depend on the
    order of the examples alone. The rest of a row is filled with `padding`, which is not learned.
    """

    row_length: int
    padding: int
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "packed_conversations",
                "conversations_without_response_dropped",
                "conversations_cut_at_row_end",
                "conversations_cut_before_response_dropped",
                "packed_rows",
                "learned_tokens",
                "padding_tokens",
            ),
            0,
        )
    )

    def pack(self, examples: Iterable[Example]) -> Iterator[Row]:
        """Whole rows; in each at least one token is learned.

        An example that is longer than a row is cut at the row's end. If nothing in the rest is learned, it is dropped.
        """
        opened: list[list[Example]] = []
        used: list[int] = []
        for example in filter(None, map(self._fit, examples)):
            length = len(example.tokens)
            fits = [row for row, filled in enumerate(used) if filled + length <= self.row_length]
            if fits:
                row = max(fits, key=used.__getitem__)
            else:
                row = len(used)
                opened.append([])
                used.append(0)
            opened[row].append(example)
            used[row] += length
            if used[row] == self.row_length or len(used) > MOST_OPEN:
                full = max(range(len(used)), key=used.__getitem__)
                used.pop(full)
                yield self._filled_row(opened.pop(full))
        yield from map(self._filled_row, opened)

    def _fit(self, example: Example) -> Example | None:
        """The example cut to a row; None where nothing of it is learned."""
        if not example.learned.any():
            self.counts["conversations_without_response_dropped"] += 1
            return None
        if len(example.tokens) <= self.row_length:
            return example
        example = Example(example.tokens[: self.row_length], example.learned[: self.row_length])
        if not example.learned.any():
            self.counts["conversations_cut_before_response_dropped"] += 1
            return None
        self.counts["conversations_cut_at_row_end"] += 1
        return example

    def _filled_row(self, examples: list[Example]) -> Row:
        """The examples one after another, then padding; counts what is in the row."""
        tokens = np.full(self.row_length, self.padding, dtype=examples[0].tokens.dtype)
        flags = np.full(self.row_length, PADDING, dtype=np.uint8)
        end = 0
        for example in examples:
            begin, end = end, end + len(example.tokens)
            tokens[begin:end] = example.tokens
            flags[begin:end] = np.where(example.learned, LEARNED, 0)
            flags[begin] |= BEGINS
        if end < self.row_length:
            flags[end] |= BEGINS
        self.counts["packed_conversations"] += len(examples)
        self.counts["packed_rows"] += 1
        self.counts["learned_tokens"] += int((flags & LEARNED).astype(bool).sum())
        self.counts["padding_tokens"] += self.row_length - end
        return tokens, flags
