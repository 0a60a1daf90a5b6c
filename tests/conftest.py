"""Shared ground of the tests: small texts made from a seed, and commands that run on them in seconds."""

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.fixtures.conversations import chat_command, chat_model, chat_text, conversations  # noqa: F401
from tests.fixtures.grid import whole  # noqa: F401
from tests.fixtures.models import pretrained, pretrained_text, start_from, tokenizer  # noqa: F401
from tests.fixtures.shared import MadeOnce, made_once  # noqa: F401
from tests.fixtures.studies import plan_of, study_of, training  # noqa: F401

ROOT = Path(__file__).parent.parent

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # compilers of their own would import torch anew
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits gives its core to the tests beside it


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
def texts(made_once: MadeOnce) -> tuple[Path, Path]:  # noqa: F811 - the fixture
    """Folders of generic and of target text."""

    def write(folder: Path) -> None:
        write_text(folder / "generic", 1, 400, 150)
        write_text(folder / "target", 2, 200, 150)

    folder = made_once("texts", write)
    return folder / "generic", folder / "target"


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


@pytest.fixture(scope="session")
def small_command(texts: tuple[Path, Path]) -> Callable[..., list[str]]:
    """Makes the arguments of a command on the small texts: small_command(output, *extra)."""
    return partial(arguments, texts)


@pytest.fixture
def command(texts: tuple[Path, Path], tmp_path: Path) -> Callable[..., list[str]]:
    """Makes the arguments of a command on the small texts: command(*extra, output="name")."""

    def make(*extra: str, output: str = "output") -> list[str]:
        return arguments(texts, tmp_path / output, *extra)

    return make


TRAINED = {"whole", "pretrained_text", "chat_text", "alone", "sharded", "belongings"}  # made by a command that trains


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is marked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the output of a command that trains is slow."""
    for item in items:
        if TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
