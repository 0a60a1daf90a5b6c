"""What a run costs is said before anything is loaded: memory, whether it fits and what would make it fit, hours."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from replay_sweeps.config import RunConfig
from replay_sweeps.errors import UserError
from replay_sweeps.main import main
from replay_sweeps.models.flops import parameters
from replay_sweeps.plan.memory import advice, hours, memory, memory_report, too_large
from replay_sweeps.study.command import read_command
from replay_sweeps.study.study import hydra_loader, resolve_study
from replay_sweeps.workers.run_study import check_memory

GIGA = 1e9


def run_of(*settings: str) -> RunConfig:
    with hydra_loader() as loader:
        return resolve_study(read_command(settings, loader), loader).runs[0]


def states(run: RunConfig, **trainer: object) -> float:
    """GB of weights, gradients and moments on a device."""
    found = memory(replace(run, trainer=replace(run.trainer, **trainer)), 128_256, None)  # type: ignore[arg-type]
    return (found.total - found.activations) / GIGA


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration and the headers of Llama 3.1 8B in bf16; its weights are a hole in a file."""
    folder, hidden = tmp_path_factory.mktemp("8b"), 4096
    shapes = {"model.embed_tokens.weight": (128_256, hidden), "lm_head.weight": (128_256, hidden)}
    shapes["model.norm.weight"] = (hidden,)  # type: ignore[assignment]
    for layer in range(32):
        attention = {"q_proj": (hidden, hidden), "k_proj": (1024, hidden), "v_proj": (1024, hidden)}
        mlp = {"gate_proj": (14_336, hidden), "up_proj": (14_336, hidden), "down_proj": (hidden, 14_336)}
        shapes |= {f"model.layers.{layer}.self_attn.{name}.weight": shape for name, shape in attention.items()}
        shapes |= {f"model.layers.{layer}.self_attn.o_proj.weight": (hidden, hidden)}
        shapes |= {f"model.layers.{layer}.mlp.{name}.weight": shape for name, shape in mlp.items()}
        shapes |= {f"model.layers.{layer}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}  # type: ignore[misc]
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(torch.tensor(shape).prod())
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "vocab_size": 128_256,
    }
    config |= {
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14_336,
    }
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


def test_an_8b_takes_the_memory_that_is_known_of_it(llama: Path) -> None:
    full = run_of("model=8b")
    assert states(full) == pytest.approx(128.5, abs=0.05)
    assert states(full, weights="bf16") == pytest.approx(64.2, abs=0.05)
    sharded = {"strategy": "fsdp", "devices": 8, "batch_rows": 16}
    assert 128.5 / 8 < states(full, **sharded) < 128.5 / 8 + 8  # and what is gathered while it is used
    start = ["model=pretrained", f"model.path={llama}", "schedule=from_pretrained", "schedule.target_tokens=4096"]
    lora = run_of(*start, "model.lora_rank=16", "model.tokenizer.path=bpe")
    assert parameters(lora.model, 0) == 8_030_261_248
    found = memory(replace(lora, trainer=replace(lora.trainer, weights="bf16")), 128_256, None)
    assert found.trained_parameters == 41_943_040
    assert states(lora, weights="bf16") == pytest.approx(16.7, abs=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        ["trainer.precision=fp32"],
        ["trainer.precision=bf16"],
        ["trainer.precision=bf16", "trainer.activation_checkpointing=true"],
        ["trainer.precision=bf16", "trainer.weights=bf16", "trainer.micro_batch_rows=4"],
    ],
)
def test_the_memory_that_a_step_takes_is_estimated_to_a_quarter(settings: list[str]) -> None:
    from torch.distributed._tools.mem_tracker import MemTracker

    from replay_sweeps.models.build import build_model
    from replay_sweeps.models.layers import checkpoint_activations
    from replay_sweeps.models.row_loss import RowLoss

    run, size = run_of("model=1m", "trainer.row_length=128", *settings), 4096
    trainer = run.trainer
    network = build_model(run.model, size, torch.bfloat16 if trainer.weights == "bf16" else torch.float32)
    if trainer.activation_checkpointing:
        checkpoint_activations(network)
    adamw, tokens = torch.optim.AdamW(network.parameters(), fused=True), torch.zeros(16, 128, dtype=torch.int64)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=trainer.precision == "bf16"):
            loss = RowLoss(network)(tokens[: trainer.micro_batch_rows]).mean()
        loss.backward()
        adamw.step()
        adamw.zero_grad()

    step()  # the moments are made
    tracker = MemTracker()
    tracker.track_external(network, adamw)
    with tracker:
        step()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert 0.8 < memory(run, size, None).total / peak < 1.25


def test_what_would_make_a_model_fit_does() -> None:
    run = run_of(
        "model=8b", "trainer.row_length=1024", "schedule.total_tokens=4194304", "schedule.target_fraction=1/64"
    )
    devices = "trainer.strategy=fsdp on {} devices of as much memory each"
    alone = advice(run, 128_256, None, int(190 * GIGA))
    assert alone == ["trainer.micro_batch_rows=4", "trainer.activation_checkpointing=true", devices.format(2)]
    together, sharded = advice(run, 128_256, None, int(40 * GIGA))
    assert together.startswith("trainer.micro_batch_rows=1 trainer.activation_checkpointing=true trainer.weights=bf16")
    assert together.endswith(devices.format(4)) and sharded == devices.format(16)
    report = {**memory_report(run, 128_256, None), "fits": False, "available": int(40 * GIGA), "would_fit": [together]}
    line = too_large(report, "8b")
    assert line and "32.1 of weights" in line and "40.0 GB; would fit: trainer.micro_batch_rows=1" in line
    assert advice(run, 128_256, None, 10_000) == []


def test_hours_follow_from_the_operations_and_the_peak_rate() -> None:
    trainer = replace(run_of().trainer, peak_tflops=100.0, utilisation=0.5, devices=2, nodes=2)
    assert hours(3600 * 200e12, trainer, None) == pytest.approx(1.0)
    rates = {"device": "cpu", "fp32_flops": 1e12, "bf16_flops": 1e12}
    assert hours(3600 * 0.4e12, run_of().trainer, rates) == pytest.approx(1.0)
    assert hours(1.0, run_of().trainer, None) is None


def test_a_model_too_large_is_told_by_the_plan_and_refused_before_anything_is_read(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vast = ["model.hidden_size=1048576", "model.layers=100", "model.mlp_size=4194304", "trainer.accelerator=cpu"]
    assert main(command(*vast, "plan=json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["memory"]["fits"] is False and plan["memory"]["weights"] == 4 * plan["parameters"]
    [warning] = [line for line in plan["warnings"] if "GB of memory" in line]
    assert main(command(*vast)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("replay-sweep: model 1m needs about") and line.partition(" (")[0].endswith(
        warning.partition(" (")[0]
    )
    assert not (tmp_path / "output").exists()


def test_a_plan_says_memory_and_hours(command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("trainer.peak_tflops=0.001", "plan=true")) == 0
    said = capsys.readouterr().out
    assert "memory: about " in said and "which fits into" in said and "hours: " in said and "at 40% of the peak" in said


def test_a_model_is_not_measured_by_the_machine_that_only_submits_it(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    vast = ["model.hidden_size=1048576", "model.layers=100", "model.mlp_size=4194304", "trainer.accelerator=cpu"]

    def check(launcher: str) -> None:
        with hydra_loader() as loader:
            check_memory(resolve_study(read_command(command(*vast, f"hydra/launcher={launcher}"), loader), loader))

    check("submitit_slurm")
    with pytest.raises(UserError, match="GB of memory on each device"):
        check("submitit_local")
    assert main(command(*vast, "hydra/launcher=submitit_slurm", "plan=json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["memory"]["fits"] is None and not [line for line in plan["warnings"] if "GB of memory" in line]
