"""Cleaned text: in the order of its source, without duplicates, and each document in one part that its hash decides."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.cleaning import clean_text, part_of
from replay_sweeps.errors import UserError
from tests.data.conftest import Prepare, Sources, WriteFolder, made_up_document

hashes = st.binary(min_size=16, max_size=16)


@given(hashes, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_held_out_share_keeps_what_a_smaller_one_held_out(hashed: bytes, first: float, second: float) -> None:
    small, large = sorted((first, second))
    if part_of(hashed, small) != "train":
        assert part_of(hashed, large) == part_of(hashed, small)


@given(hashes)
def test_nothing_is_held_out_at_zero_and_all_at_one(hashed: bytes) -> None:
    assert part_of(hashed, 0.0) == "train"
    assert part_of(hashed, 1.0) in ("selection", "report")


def test_the_cleaned_text_is_in_the_order_of_the_source(two_sources: Sources, tmp_path: Path) -> None:
    text = clean_text(two_sources[0], tmp_path / "text", None)
    order = [made_up_document(seed) for seed in range(150)]
    places = [order.index(document) for document in text.documents("train")]
    assert places == sorted(places)
    assert len(text.signatures("train")) == len(places)


def test_duplicates_within_a_source_are_dropped_and_counted(write_folder: WriteFolder, prepare: Prepare) -> None:
    texts = [made_up_document(seed, words=200) for seed in range(100)]
    more = [*texts, *texts[:7], *(f"{text} tail" for text in texts[:5])]
    source = SourceConfig("generic", "local", path=str(write_folder("g", more)), validation_fraction=0.2)
    counts = prepare(source).generic.counts
    assert (counts["documents"], counts["exact_duplicates_dropped"], counts["near_duplicates_dropped"]) == (112, 7, 5)


@pytest.mark.parametrize(
    ("documents", "fraction", "expected"),
    [
        (3, 0.001, "no document for the selection half of validation: 3 different documents of 3"),
        (3, 1.0, "no document for training text"),
        (0, 0.1, "there is no text"),
    ],
)
def test_too_little_text_is_said_in_one_line(
    write_folder: WriteFolder, prepare: Prepare, documents: int, fraction: float, expected: str
) -> None:
    folder = write_folder("few", [made_up_document(seed) for seed in range(documents)] or [" \n "])
    source = SourceConfig("few", "local", path=str(folder), validation_fraction=fraction)
    with pytest.raises(UserError, match=expected) as caught:
        prepare(source)
    assert len(caught.value.problems) == 1
