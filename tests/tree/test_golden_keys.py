"""The names of states never change by accident: with another key every user would lose the states trained before.

Where a key has to change, `SEMANTICS` is raised, the change is told in the change log, and this file is written anew by
`python -m tests.tree.test_golden_keys`.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from replay_sweeps.data.prepared_text import TextFingerprints
from replay_sweeps.files import fingerprint
from replay_sweeps.models import numerics
from replay_sweeps.models.pretrained import with_pretrained_shape
from replay_sweeps.study.command import read_command
from replay_sweeps.study.composer import Composer
from replay_sweeps.study.study import hydra_loader
from replay_sweeps.tree.planned_run import initial_weights, plan_run, root_settings

GOLDEN = Path(__file__).parent / "golden_keys.json"
TARGET = TextFingerprints("target train", "target selection", "target report")
GENERIC = TextFingerprints("generic train", "generic selection", "generic report")
VOCABULARY = 512

SMALL = ["+scale=tiny", "generic=local", "generic.path=generic", "target=local", "target.path=target"]
SMALL += ["schedule.total_tokens=65536", "trainer.precision=fp32"]
SHARE = ["schedule.target_fraction=1/128", "schedule.replay_fraction=1/3", "schedule.target_epochs=6"]
GIVEN = ["model=pretrained", "schedule=from_pretrained", "schedule.total_tokens=null", "schedule.target_tokens=4096"]
GIVEN += ["schedule.replay_fraction=0.75", "schedule.stage2.peak=1e-4", "schedule.subset_seed=3"]
RUNS = {
    "mid_train": [*SMALL, *SHARE, "schedule=mid_train", "schedule.stage2_allocation=0.5", "model.init_seed=5"],
    "fine_tune": [*SMALL, *SHARE, "schedule=fine_tune", "schedule.order_seed=2", "optimizer.weight_decay=0.4"],
    "from_pretrained": [*SMALL, *GIVEN, "trainer.weights=bf16", "trainer.precision=bf16", "generic.order_seed=1"],
    "lora": [*SMALL, *GIVEN, "model.lora_rank=2", "model.lora_targets=q_proj", "trainer.activation_checkpointing=true"],
    "packed": [*SMALL, *GIVEN, "target=chat", "target.path=chat.jsonl", "trainer.micro_batch_rows=4"],
}


def write_model(folder: Path) -> Path:
    """A Llama whose files are the same bytes on every machine."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "vocab_size": VOCABULARY}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16}
    config |= {"max_position_embeddings": 64, "tie_word_embeddings": True, "torch_dtype": "float32"}
    shapes = {"model.embed_tokens.weight": [VOCABULARY, 8], "model.norm.weight": [8]}
    layer = {"self_attn.q_proj": [8, 8], "self_attn.k_proj": [4, 8], "self_attn.v_proj": [4, 8]}
    layer |= {"self_attn.o_proj": [8, 8], "mlp.gate_proj": [16, 8], "mlp.up_proj": [16, 8], "mlp.down_proj": [8, 16]}
    layer |= {"input_layernorm": [8], "post_attention_layernorm": [8]}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layer.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, sort_keys=True))
    named = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(named)) + named + bytes(end))
    return folder


def keys_of(settings: list[str], model: Path) -> dict[str, Any]:
    """The root of a run's tree, its run id, and the keys of its states after some steps."""
    given = [f"model.path={model}"] if "model=pretrained" in settings else []
    with hydra_loader() as loader:
        run, problems = Composer(read_command([*settings, *given], loader), loader).run({})
    assert run is not None and not problems, problems
    if run.model.path is not None:
        from dataclasses import replace

        run = replace(run, model=with_pretrained_shape(run.model))
    resolved = numerics.resolve(run.trainer, run.model, None)
    root = root_settings(run, GENERIC, resolved, initial_weights(run, VOCABULARY))
    planned = plan_run(run, TARGET, GENERIC, fingerprint(root), resolved, VOCABULARY)
    steps = [1, planned.steps // 3, planned.schedule.stage2_step + 1, planned.steps]
    return {
        "root": planned.root,
        "run_id": planned.run_id,
        "keys": {str(step): planned.key(step) for step in steps},
    }


def all_keys(folder: Path) -> dict[str, Any]:
    """The keys of all five runs."""
    model = write_model(folder / "model")
    return {name: keys_of(settings, model) for name, settings in RUNS.items()}


def test_states_are_named_as_they_always_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "torch_version", lambda: "2.13.0")
    assert all_keys(tmp_path) == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps(all_keys(Path(place)), indent=1) + "\n")
    sys.exit(0)
