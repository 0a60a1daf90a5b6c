"""Conversations made from a seed, and a small pretrained model whose tokenizer has a chat template."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
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
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("chat_model")
    bpe = ByteLevelBPETokenizer()
    files = sorted(texts[0].glob("*.txt"))
    special = ["<eos>", "<|im_start|>", "<|im_end|>"]
    bpe.train([str(file) for file in files], vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<eos>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    LlamaForCausalLM(LlamaConfig(vocab_size=448, max_position_embeddings=128, **shape)).save_pretrained(folder)
    return folder


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
