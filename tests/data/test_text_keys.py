"""Keys of text follow what decides the result, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from replay_sweeps.data.text_keys import study_key, text_key, tokenizer_key
from tests.data.conftest import SMALL_BPE, Sources, request

GENERIC_KEY = "key of the generic text"


def test_the_key_of_a_text_follows_its_split_and_not_its_use_in_a_run(two_sources: Sources) -> None:
    source = two_sources[0]
    assert text_key(source) == text_key(replace(source, name="another", order_seed=3, repeat=True))
    assert text_key(source) != text_key(replace(source, validation_fraction=0.3))
    assert text_key(source) != text_key(two_sources[1])


def test_the_key_of_a_bpe_follows_its_size_and_its_training_text() -> None:
    assert tokenizer_key(SMALL_BPE, GENERIC_KEY) != tokenizer_key(replace(SMALL_BPE, vocab_size=301), GENERIC_KEY)
    assert tokenizer_key(SMALL_BPE, GENERIC_KEY) != tokenizer_key(SMALL_BPE, "another")


@pytest.mark.parametrize("has_conversations", [False, True])
def test_the_length_of_rows_decides_the_text_of_conversations_alone(
    two_sources: Sources, has_conversations: bool, tmp_path: Path
) -> None:
    generic, target = two_sources
    (tmp_path / "chat.jsonl").touch()
    chat = replace(target, path=str(tmp_path), format="chat")
    short, long = (
        study_key(request(generic, chat if has_conversations else target, folder=tmp_path, row_length=length))
        for length in (64, 128)
    )
    assert (short != long) == has_conversations


def test_the_key_of_a_study_does_not_depend_on_its_folder(two_sources: Sources, tmp_path: Path) -> None:
    assert study_key(request(*two_sources, folder=tmp_path)) == study_key(request(*two_sources, folder=Path("other")))
