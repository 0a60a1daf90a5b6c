"""Conversations made from a seed, and a small pretrained model whose tokenizer has a chat template."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pretrained_model import CHATML, write_small_model

MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
Conversation = list[dict[str, Any]]


def made_up_conversation(seed: int) -> Conversation:
    """A conversation of made-up words, of a few turns, some with a system message."""
    chance = random.Random(seed)

    def words(most: int) -> str:
        count = chance.randint(2, most)
        return " ".join("".join(chance.choices("abcdefghijklm", k=chance.randint(1, 4))) for _ in range(count))

    messages = [{"role": "system", "content": words(3)}] if chance.random() < 0.3 else []
    for _ in range(chance.choice((1, 1, 1, 2, 6))):
        messages += [{"role": "user", "content": words(3)}, {"role": "assistant", "content": words(5)}]
    return messages


@pytest.fixture(scope="session")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of conversations."""
    file = tmp_path_factory.mktemp("conversations") / "chat.jsonl"
    file.write_text("".join(json.dumps({"messages": made_up_conversation(seed)}) + "\n" for seed in range(500)))
    return file


@pytest.fixture(scope="session")
def chat_model(texts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as `transformers` saves it, whose tokenizer has a chat template."""
    folder = tmp_path_factory.mktemp("chat_model")
    return write_small_model(folder, sorted(texts[0].glob("*.txt")), 128, layers=2, chat_template=CHATML)


@pytest.fixture
def chat_command(command: Callable[..., list[str]], chat_model: Path) -> Callable[..., list[str]]:
    """Makes the arguments of a command that goes on from the small model: chat_command(*extra, output="name")."""

    def make(*extra: str, output: str = "output") -> list[str]:
        left_out = ("+scale", "schedule.", "trainer.", "evaluation.")
        kept = [item for item in command(output=output) if not item.startswith(left_out)]
        return [
            *kept,
            "model=pretrained",
            f"model.path={chat_model}",
            "schedule=from_pretrained",
            "schedule.target_tokens=2048",
            "schedule.target_epochs=1",
            "trainer.row_length=128",
            "trainer.batch_rows=8",
            "trainer.compile=false",
            "trainer.precision=fp32",
            "trainer.threads=1",
            "evaluation.tokens=1024",
            *extra,
        ]

    return make
