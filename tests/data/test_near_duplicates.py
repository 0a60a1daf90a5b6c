"""Near duplicates are found, different texts are not, and short texts are treated with care."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay_sweeps.data.near_duplicates import (
    THRESHOLD,
    Deduplicator,
    Signatures,
    find_near_duplicates,
    shingles,
    sketch,
    text_hash,
)

from .conftest import made_up_document

SHORT_TEXTS = [["yes", "no"], ["!!!", "???"], ["今日は良い天気です", "明日は雨が降ります"], ["1 2 3 4 5", "1 2 3 4 6"]]


def signatures(texts: list[str]) -> Signatures:
    return np.array([minhash.digest() for _, minhash in sketch(texts)], dtype=np.uint32)


def judged(texts: list[str]) -> list[bool]:
    known = Deduplicator()
    return [known.is_new(*sketched) for sketched in sketch(texts)]


def jaccard(text: str, other: str) -> float:
    first, second = set(shingles(text)), set(shingles(other))
    return len(first & second) / len(first | second)


def with_changed_words(text: str, count: int, seed: int = 0) -> str:
    words = text.split(" ")
    for place in random.Random(seed).sample(range(len(words)), count):
        words[place] = f"changed{place}"
    return " ".join(words)


def test_a_repeated_text_is_an_exact_duplicate_whatever_its_case_and_spacing() -> None:
    known = Deduplicator()
    answers = [known.is_new(*sketched) for sketched in sketch(["One two", "one\n  TWO", "one two three"])]
    assert answers == [True, False, True]
    assert (known.exact, known.near) == (1, 0)


def test_a_text_with_a_few_changed_words_is_a_near_duplicate() -> None:
    text = made_up_document(1, words=400)
    known = Deduplicator()
    assert [known.is_new(*s) for s in sketch([text, with_changed_words(text, 3)])] == [True, False]
    assert (known.exact, known.near) == (0, 1)


def test_different_texts_are_all_kept() -> None:
    assert all(judged([made_up_document(seed) for seed in range(300)]))


@pytest.mark.parametrize("texts", SHORT_TEXTS)
def test_different_short_texts_are_kept(texts: list[str]) -> None:
    assert judged(texts) == [True, True]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30))
def test_what_counts_as_near_agrees_with_the_true_similarity(seed: int, changes: int) -> None:
    text = made_up_document(seed, words=300)
    other = with_changed_words(text, changes, seed)
    similarity = jaccard(text, other)
    found = bool(find_near_duplicates(signatures([other]), [signatures([text])])[0])
    if abs(similarity - THRESHOLD) > 0.17:  # 128 permutations tell it to 0.035, one standard deviation
        assert found == (similarity > THRESHOLD)


def test_a_corpus_larger_than_a_block_is_searched_whole() -> None:
    rows = np.random.default_rng(0).integers(0, 2**32, (70_000, 128), dtype=np.uint32)
    candidates = np.vstack([rows[[3, 69_999]], rows[:1] ^ 1])
    assert find_near_duplicates(candidates, [rows[:0], rows]).tolist() == [True, True, False]


@given(st.text())
def test_spacing_and_case_do_not_change_the_hash(text: str) -> None:
    text = text.encode(errors="ignore").decode()
    assert text_hash(text) == text_hash(f"  {text}\n") == text_hash(" ".join(text.split()))
