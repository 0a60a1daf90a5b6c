"""Tiny models of several architectures as `transformers` saves them, with tokenizers of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pretrained_model import write_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 448}
ATTENTION = {"num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}
GROUPED = {**ATTENTION, "num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {**SMALL, **GROUPED, "tie_word_embeddings": True},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 448},
    "gpt_neox": {**SMALL, **ATTENTION},
    "qwen2": {**SMALL, **GROUPED},
    "qwen3": {**SMALL, **GROUPED},
    "gemma2": {**SMALL, **GROUPED, "final_logit_softcapping": 0.05, "sliding_window": 16},
    "cohere": {**SMALL, **GROUPED, "logit_scale": 0.1},
    "granite": {**SMALL, **GROUPED, "logits_scaling": 3.0},
    "mamba": {**SMALL, "state_size": 4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 448},
    "qwen3_moe": {**SMALL, **GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}


def save_model(folder: Path, kind: str, **settings: Any) -> Path:
    """Save a model of this architecture, whose weights are larger than new ones so that its logits differ."""
    from transformers import AutoConfig, AutoModelForCausalLM

    import replay_sweeps.models.build  # noqa: F401 - it silences transformers, of which tests that read stderr want nothing

    torch.manual_seed(0)
    shape = {**ARCHITECTURES[kind], "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, **settings}
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(texts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 400 tokens, learned on the generic text."""
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"), sorted(texts[0].glob("*.txt")))


@pytest.fixture(scope="session")
def pretrained(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model of an architecture, with the tokenizer: pretrained("gpt2")."""
    import shutil

    made: dict[str, Path] = {}

    def model(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_model(tmp_path_factory.mktemp(kind), kind)
            shutil.copytree(tokenizer, made[kind], dirs_exist_ok=True)
        return made[kind]

    return model


@pytest.fixture
def start_from(command: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """The arguments of a command that trains a model in seconds: start_from(path, *extra)."""

    def arguments(model: Path | str, *extra: str) -> list[str]:
        left_out = ("+scale", "schedule.", "trainer.", "evaluation.")
        return [
            *(item for item in command() if not item.startswith(left_out)),
            "model=pretrained",
            f"model.path={model}",
            "schedule=from_pretrained",
            "schedule.target_tokens=1024",
            "schedule.replay_fraction=0.5",
            "schedule.target_epochs=1",
            "schedule.stage2.peak=1e-3",
            "trainer.row_length=32",
            "trainer.batch_rows=8",
            "trainer.compile=false",
            "trainer.threads=1",
            "trainer.precision=fp32",
            "evaluation.tokens=1024",
            *extra,
        ]

    return arguments
