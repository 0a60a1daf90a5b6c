"""Tokens stand for the text exactly, for any number of workers; unknown tokenizers are said in one line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.config import TokenizerConfig
from replay_sweeps.data.tokenizers import (
    END_OF_TEXT,
    LoadedTokenizer,
    check_tokenizer,
    encode,
    load_pretrained,
    loaded,
    train_bpe,
)
from replay_sweeps.errors import UserError

from .conftest import made_up_document

TEXTS = [made_up_document(seed) for seed in range(30)]


@pytest.fixture(scope="module")
def tokenizer() -> LoadedTokenizer:
    return train_bpe(TEXTS, 400)


def tokens_of(tokenizer: LoadedTokenizer, texts: list[str], workers: int = 1) -> list[int]:
    return [int(token) for batch in encode(tokenizer, texts, workers, "test") for token in batch]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_whole(tokenizer: LoadedTokenizer, text: str) -> None:
    *tokens, last = tokens_of(tokenizer, [text])
    assert last == tokenizer.end_of_text
    assert tokenizer.tokenizer.decode(tokens, skip_special_tokens=False) == text


def test_a_document_that_speaks_of_end_of_text_does_not_end_there(tokenizer: LoadedTokenizer) -> None:
    *tokens, last = tokens_of(tokenizer, [f"before {END_OF_TEXT} after"])
    assert last == tokenizer.end_of_text
    assert tokenizer.end_of_text not in tokens


def test_tokens_do_not_depend_on_the_number_of_workers(
    tokenizer: LoadedTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replay_sweeps.data.tokenizers.BATCH_CHARACTERS", 2000)
    expected = tokens_of(tokenizer, TEXTS)
    assert all(tokens_of(tokenizer, TEXTS, workers) == expected for workers in (2, 3, 7))


def test_the_same_text_trains_the_same_tokenizer() -> None:
    assert train_bpe(iter(TEXTS), 350).files == train_bpe(TEXTS, 350).files


def test_every_token_fits_the_vocabulary(tokenizer: LoadedTokenizer) -> None:
    assert 0 <= min(tokens_of(tokenizer, TEXTS)) <= max(tokens_of(tokenizer, TEXTS)) < tokenizer.vocab_size == 400


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TokenizerConfig("bpe", 256), "vocab_size=256 is too small"),
        (TokenizerConfig("./nowhere"), "is not a folder with a tokenizer"),
    ],
)
def test_a_wrong_tokenizer_is_said_in_one_line(config: TokenizerConfig, expected: str) -> None:
    problems = check_tokenizer(config)
    assert len(problems) == 1
    assert expected in problems[0]


def test_an_unknown_name_is_one_line_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def unknown(*args: object, **more: object) -> None:
        raise ConnectionError("404 no such thing\ndetails")

    monkeypatch.setattr(HfApi, "model_info", unknown)
    with pytest.raises(UserError, match="'no-one/nothing' can't be loaded") as caught:
        load_pretrained(TokenizerConfig("no-one/nothing"))
    assert "\n" not in caught.value.problems[0]


def test_a_trained_tokenizer_is_read_by_transformers_and_gives_the_same_tokens(
    tmp_path: Path, tokenizer: LoadedTokenizer
) -> None:
    for name, content in tokenizer.files.items():
        (tmp_path / name).write_bytes(content)
    read = load_pretrained(TokenizerConfig(str(tmp_path)))
    assert (read.end_of_text, read.vocab_size) == (tokenizer.end_of_text, tokenizer.vocab_size)
    assert tokens_of(read, TEXTS) == tokens_of(tokenizer, TEXTS)


def test_loading_from_its_files_changes_no_token(tokenizer: LoadedTokenizer) -> None:
    again = loaded(tokenizer.files, tokenizer.vocab_size, tokenizer.end_of_text)
    assert np.array_equal(tokens_of(again, TEXTS), tokens_of(tokenizer, TEXTS))
