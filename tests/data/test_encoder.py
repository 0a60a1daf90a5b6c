"""A validation half is sampled from the beginnings of many documents."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.data.encoder import sample_of_documents


@given(st.lists(st.integers(0, 900), min_size=1, max_size=60), st.integers(1, 20_000))
def test_a_validation_half_samples_many_documents_and_keeps_to_its_size(lengths: list[int], limit: int) -> None:
    documents = [np.append(np.arange(1, length + 1), 0) for length in lengths]
    sample = list(sample_of_documents(iter([np.concatenate(documents)]), limit, end_of_text=0))
    assert sum(map(len, sample)) == min(limit, sum(map(len, documents)))
    most = max(limit // 32, 256)
    for document, first in zip(documents, sample, strict=False):
        assert first.tolist() == document[: min(most, len(first))].tolist()
