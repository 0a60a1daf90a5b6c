"""Shared ground of the tests: small texts made from a seed, and commands that run on them in seconds."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.conversations import chat_command, chat_model, conversations  # noqa: F401
from tests.fixtures.models import pretrained, start_from, tokenizer  # noqa: F401
from tests.fixtures.studies import plan_of, study_of, training  # noqa: F401

ROOT = Path(__file__).parent.parent

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def write_text(folder: Path, seed: int, documents: int, words: int) -> Path:
    """Documents of made-up words: no two alike, two seeds with words of their own."""
    chance = random.Random(seed)
    lexicon = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(500)]
    weights = [1 / (rank + 1) for rank in range(len(lexicon))]
    folder.mkdir(parents=True)
    for number in range(documents):
        text = " ".join(chance.choices(lexicon, weights, k=words))
        (folder / f"{number:04}.txt").write_text(text + "\n")
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of generic and of target text."""
    folder = tmp_path_factory.mktemp("texts")
    return write_text(folder / "generic", 1, 400, 150), write_text(folder / "target", 2, 200, 150)


def arguments(texts: tuple[Path, Path], output: Path, *extra: str) -> list[str]:
    """A command on small texts that runs in seconds."""
    return [
        "+scale=tiny",
        "generic=local",
        f"generic.path={texts[0]}",
        "target=local",
        f"target.path={texts[1]}",
        "schedule.total_tokens=32768",
        "schedule.target_fraction=1/128",
        "schedule.target_epochs=4",
        "evaluation.tokens=1024",
        "trainer.threads=1",
        "logger=csv",
        "study.analyze=false",
        f"paths.output={output}",
        *extra,
    ]


@pytest.fixture
def command(texts: tuple[Path, Path], tmp_path: Path) -> Callable[..., list[str]]:
    """Makes the arguments of a command on the small texts: command(*extra, output="name")."""

    def make(*extra: str, output: str = "output") -> list[str]:
        return arguments(texts, tmp_path / output, *extra)

    return make


@pytest.fixture(scope="session")
def share_text() -> Callable[[Path, Path], None]:
    """Copies the tokenised text and the measured rates of one output's store to another's, states excepted."""

    def copy(source: Path, to: Path) -> None:
        for name in ("text", "numerics"):
            shutil.copytree(source / "store" / name, to / "store" / name)

    return copy
