"""Small texts made on the spot, and sources that read them."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.prepare import prepare_text
from replay_sweeps.data.prepared_text import PreparedText
from replay_sweeps.data.text_keys import TextRequest

Prepare = Callable[..., PreparedText]
WriteFolder = Callable[[str, Sequence[str]], Path]
Sources = tuple[SourceConfig, SourceConfig]
SMALL_BPE = TokenizerConfig("bpe", 300)


def request(
    generic: SourceConfig,
    *targets: SourceConfig,
    folder: Path,
    tokenizer: TokenizerConfig = SMALL_BPE,
    validation_tokens: int = 2000,
    row_length: int = 64,
) -> TextRequest:
    """A request for the text of these sources, with a small tokenizer unless told otherwise."""
    return TextRequest(
        generic=generic,
        targets=targets,
        tokenizer=tokenizer,
        folder=folder,
        validation_tokens=validation_tokens,
        row_length=row_length,
    )


def made_up_document(seed: int, words: int = 120) -> str:
    """A document of made-up words, unlike that of any other seed."""
    chance = random.Random(seed)
    lines = []
    while words > 0:
        length = min(words, 12)
        line = ("".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 8))) for _ in range(length))
        lines.append(" ".join(line))
        words -= length
    return "\n".join(lines)


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[[str, Sequence[str]], Path]:
    """Writes documents as text files into a new folder."""

    def write(name: str, documents: Sequence[str]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number, document in enumerate(documents):
            (folder / f"{number:05}.txt").write_text(document)
        return folder

    return write


@pytest.fixture
def two_sources(write_folder: Callable[[str, Sequence[str]], Path]) -> tuple[SourceConfig, SourceConfig]:
    """A generic and a target source of local files, with a fifth held out."""
    generic = write_folder("generic", [made_up_document(seed) for seed in range(150)])
    target = write_folder("target", [made_up_document(seed) for seed in range(1000, 1080)])
    return (
        SourceConfig("generic", "local", path=str(generic), validation_fraction=0.2),
        SourceConfig("target", "local", path=str(target), validation_fraction=0.2),
    )


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """`prepare_text` with a small tokenizer, into the test's own folder unless told otherwise."""

    def run(
        generic: SourceConfig,
        *targets: SourceConfig,
        folder: Path | None = None,
        workers: int = 1,
        **more: Any,
    ) -> PreparedText:
        return prepare_text(request(generic, *targets, folder=folder or tmp_path / "prepared", **more), workers=workers)

    return run
