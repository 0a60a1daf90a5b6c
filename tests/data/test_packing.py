"""Conversations are packed into rows: each in one row, whole or cut at its end."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.data.packing import Example, RowPacker
from replay_sweeps.data.token_store import BEGINS, LEARNED, PADDING

lengths = st.lists(st.tuples(st.integers(2, 40), st.integers(0, 45)), min_size=1, max_size=200)


@given(lengths)
def test_every_example_is_in_one_row_whole_or_cut_at_its_end(sizes: list[tuple[int, int]]) -> None:
    """Sizes: the tokens of each example, and the first of them that is learned."""
    row_length, padding = 24, 7
    examples = [
        Example(np.arange(1000 * number, 1000 * number + size), np.arange(size) >= max(first, 1))
        for number, (size, first) in enumerate(sizes, 1)
    ]
    packing = RowPacker(row_length, padding)
    rows = list(packing.pack(iter(examples)))
    found = {}
    for tokens, flags in rows:
        assert len(tokens) == len(flags) == row_length and (flags & LEARNED).any() and flags[0] & BEGINS
        assert set(tokens[flags & PADDING != 0]) <= {padding} and not (flags & LEARNED)[flags & PADDING != 0].any()
        for part, marks in zip(
            *(np.split(a, np.flatnonzero(flags & BEGINS)[1:]) for a in (tokens, flags)), strict=True
        ):
            if not marks[0] & PADDING:
                found[part[0] // 1000] = (part.tolist(), (marks & LEARNED != 0).tolist())
    expected = {
        number: (example.tokens[:row_length].tolist(), example.learned[:row_length].tolist())
        for number, example in enumerate(examples, 1)
        if example.learned[:row_length].any()
    }
    assert found == expected
    counts = packing.counts
    dropped = counts["conversations_without_response_dropped"] + counts["conversations_cut_before_response_dropped"]
    assert (counts["packed_rows"], counts["packed_conversations"] + dropped) == (len(rows), len(examples))
    assert counts["learned_tokens"] == sum(sum(learned) for _, learned in found.values())
    assert counts["packed_rows"] * row_length - counts["padding_tokens"] == sum(
        len(tokens) for tokens, _ in found.values()
    )
