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


def write_documents(folder: Path, documents: Sequence[str]) -> Path:
    """Documents as text files in a new folder."""
    folder.mkdir()
    for number, document in enumerate(documents):
        (folder / f"{number:05}.txt").write_text(document)
    return folder


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Writes documents as text files into a new folder of the test."""
    return lambda name, documents: write_documents(tmp_path / name, documents)


@pytest.fixture(scope="session")
def two_sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """A generic and a target source of local files, a fifth held out. Tests share the files and never change them."""
    folder = tmp_path_factory.mktemp("two_sources")
    generic = write_documents(folder / "generic", [made_up_document(seed) for seed in range(150)])
    target = write_documents(folder / "target", [made_up_document(seed) for seed in range(1000, 1080)])
    return (
        SourceConfig("generic", "local", path=str(generic), validation_fraction=0.2),
        SourceConfig("target", "local", path=str(target), validation_fraction=0.2),
    )


@pytest.fixture(scope="session")
def prepared_once(two_sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the text of the two sources was prepared: copy it before anything in it is changed."""
    folder = tmp_path_factory.mktemp("prepared_once")
    prepare_text(request(*two_sources, folder=folder), workers=1)
    return folder


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
