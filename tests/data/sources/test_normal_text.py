"""Text has one normal form, and long documents are cut without losing words."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.data.sources.normal_text import cut, normalise


def test_line_ends_trailing_spaces_and_control_characters_are_normalised() -> None:
    assert normalise("\n\n  a \t\r\nb\rc\x00\x0c\ufeff  \n\n") == "  a\nb\nc"


def test_equal_looking_characters_become_the_same() -> None:
    assert normalise("e\u0301") == normalise("\u00e9") == "\u00e9"


def test_a_lone_surrogate_does_not_survive() -> None:
    normalise("a\ud800b").encode()


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


@given(st.text(alphabet="ab \n", max_size=400), st.integers(8, 60))
def test_cutting_keeps_every_character_but_white_space_within_the_limit(text: str, limit: int) -> None:
    pieces = cut(normalise(text), limit)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= limit for piece in pieces)


def test_a_long_document_is_cut_at_its_paragraphs() -> None:
    paragraphs = [letter * 40 for letter in "abcdef"]
    assert cut("\n\n".join(paragraphs), 90) == ["\n\n".join(paragraphs[i : i + 2]) for i in (0, 2, 4)]
