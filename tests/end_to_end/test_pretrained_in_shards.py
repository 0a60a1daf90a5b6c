"""Pretrained models in shards: whatever is trained of them and however, the bits of the same model copied."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.fixtures.outputs import run_table, states, tensors
from tests.fixtures.shared import finish

pytestmark = pytest.mark.slow

LORA = ["model.lora_rank=1", "schedule.stage2.peak=1e-2"]  # a row of an adapter is in one shard, none in the other
MEMORY = ["trainer.weights=bf16", "trainer.precision=bf16", "trainer.activation_checkpointing=true"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", []),
        ("llama", LORA),
        ("llama", ["trainer.compile=layers", "trainer.activation_checkpointing=true"]),
        ("qwen2", [*LORA, *MEMORY]),
        ("gemma2", MEMORY),
    ],
    ids=["gpt2", "LoRA", "compiled layers", "LoRA beside bf16", "bf16"],
)
def test_a_pretrained_model_in_shards_ends_in_the_bits_of_its_copies(
    kind: str,
    settings: list[str],
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    tmp_path: Path,
    pretrained_text: Path,
) -> None:
    outputs = [tmp_path / "copied", tmp_path / "sharded"]
    for output, strategy in zip(outputs, ("ddp", "fsdp"), strict=True):
        given = [*settings, f"trainer.strategy={strategy}", f"paths.output={output}", "trainer.waypoints=2"]
        finish(start_from(pretrained(kind), "trainer.devices=2", *given), text_of=pretrained_text)
    pd.testing.assert_frame_equal(*map(run_table, outputs), check_exact=True)
    copied, sharded = map(states, outputs)
    assert copied and copied.keys() == sharded.keys()
    for name, folder in copied.items():
        ours, theirs = tensors(folder), tensors(sharded[name])
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[part]) for part, tensor in ours.items())
