"""The demo model: what is written can be saved again, as an export of a model trained from it does."""

from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from replay_sweeps.models.demo import plain_settings


def test_a_model_read_from_gguf_can_be_saved_loaded_and_saved_again(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    read = LlamaConfig(vocab_size=16, **shape).to_dict() | {"quantization_config": {"quant_method": "gguf"}}
    LlamaForCausalLM(LlamaConfig(**plain_settings(read))).save_pretrained(tmp_path / "demo")
    trained = LlamaForCausalLM.from_pretrained(tmp_path / "demo")
    trained.save_pretrained(tmp_path / "export")
    assert LlamaForCausalLM.from_pretrained(tmp_path / "export").config.hidden_size == shape["hidden_size"]
