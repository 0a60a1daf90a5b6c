"""Options that trade memory for time or bits: what they compute is the same to rounding."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from replay_sweeps.machine import compiler
from replay_sweeps.main import main
from replay_sweeps.models import numerics
from replay_sweeps.models.numerics import resolve
from replay_sweeps.study.command import read_command
from replay_sweeps.study.study import hydra_loader, resolve_study
from tests.fixtures.models import ARCHITECTURES
from tests.fixtures.shared import finish

from .test_architectures import config_of

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")


def trained(output: Path) -> float:
    [run] = pd.read_parquet(output / "runs.parquet").to_dict("records")
    assert run["status"] == "done", run["reason"]
    return float(run["target_loss"])


@pytest.fixture
def loss_with(
    pretrained: Callable[[str], Path], start_from: Callable[..., list[str]], tmp_path: Path, pretrained_text: Path
) -> Callable[..., float]:
    """The loss of a run with some settings."""

    def loss(*settings: str) -> float:
        output = tmp_path / "-".join(settings or ["plain"]).replace("=", "_")
        given = start_from(pretrained("llama"), f"paths.output={output}", *settings)
        return trained(finish(given, text_of=pretrained_text))

    return loss


@pytest.mark.slow
def test_activations_that_are_computed_anew_change_nothing(loss_with: Callable[..., float]) -> None:
    assert loss_with("trainer.activation_checkpointing=true") == pytest.approx(loss_with(), abs=1e-6)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("settings", [["trainer.compile=layers"], ["trainer.compile=true"]])
def test_compiled_with_and_without_activations_computed_anew(
    settings: list[str], loss_with: Callable[..., float]
) -> None:
    anew = "trainer.activation_checkpointing=true"
    assert loss_with(*settings, anew) == pytest.approx(loss_with(), abs=1e-5)


@pytest.mark.slow
def test_weights_in_bf16_are_kept_in_bf16_and_train(loss_with: Callable[..., float], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = loss_with("trainer.weights=bf16", "trainer.precision=bf16", "keep_states=all", "trainer.waypoints=0")
    assert found == pytest.approx(loss_with(), abs=0.05)
    files = list(tmp_path.glob("trainer.weights*/store/states/*/*/*.safetensors"))
    assert files
    for file in files:
        assert {tensor.dtype for name, tensor in load_file(file).items() if not name.endswith("/step")} == {
            torch.bfloat16
        }


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_less_is_kept_for_the_backward_pass(kind: str, pretrained: Callable[[str], Path]) -> None:
    from replay_sweeps.models.build import build_model
    from replay_sweeps.models.layers import checkpoint_activations, decoder_layers
    from replay_sweeps.models.row_loss import RowLoss

    network = build_model(config_of(pretrained(kind)), 448)
    assert len(decoder_layers(network)) == 2
    before, loss = kept_bytes(network)
    checkpoint_activations(network)
    after, again = kept_bytes(network)
    assert after < 0.8 * before and math.isclose(loss, again, rel_tol=1e-6)
    assert RowLoss(network)(torch.zeros(1, 8, dtype=torch.int64)).isfinite()


def kept_bytes(network: torch.nn.Module) -> tuple[int, float]:
    """Bytes that autograd keeps for the backward pass of a batch, weights left out; and the loss."""
    from replay_sweeps.models.row_loss import RowLoss

    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that its address is not used again
        return tensor

    tokens = torch.randint(0, 400, (4, 48), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = RowLoss(network)(tokens).mean()  # type: ignore[arg-type]
    size = sum(storage.nbytes() for storage in kept.values())
    loss.backward()
    return size, float(loss.detach())


def test_defaults_enter_no_key_and_choices_do(
    pretrained: Callable[[str], Path], start_from: Callable[..., list[str]]
) -> None:
    def found(*settings: str) -> dict[str, object]:
        with hydra_loader() as loader:
            study = resolve_study(read_command(start_from(pretrained("llama"), *settings), loader), loader)
        return resolve(study.runs[0].trainer, study.runs[0].model, None)

    assert set(found()) == {"precision", "compile", "torch"}
    assert found("trainer.weights=bf16", "trainer.precision=auto")["weights"] == "bf16"
    assert found("trainer.activation_checkpointing=true")["activation_checkpointing"] is True


@pytest.mark.parametrize(
    ("kind", "lora", "fused"),
    [
        ("qwen2", {}, True),
        ("qwen2", {"lora_rank": 2}, True),
        ("qwen2", {"lora_rank": 2, "lora_targets": "q_proj,lm_head"}, False),
        ("gemma2", {}, False),
    ],
)
def test_the_fused_loss_is_of_models_that_it_trains_as_the_plain_one_does(
    kind: str,
    lora: dict[str, Any],
    fused: bool,
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from replay_sweeps.plan.memory import activation_bytes

    monkeypatch.setattr(numerics, "why_not_fused", lambda: None)
    rates = {"device": "cuda", "fp32_flops": 1.0, "bf16_flops": 8.0}
    with hydra_loader() as loader:
        [run, *_] = resolve_study(read_command(start_from(pretrained(kind)), loader), loader).runs
    run = replace(run, model=replace(run.model, **lora), trainer=replace(run.trainer, accelerator="auto"))
    assert resolve(run.trainer, run.model, rates).get("fused_loss", False) is fused
    plain = replace(run, trainer=replace(run.trainer, fused_loss="false"))
    assert (activation_bytes(run, 448, rates) < activation_bytes(plain, 448, rates)) is fused


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("trainer.weights=bf16", "trainer.precision must be auto or bf16"),
        ("trainer.fused_loss=true", "trainer.fused_loss=true (command line): needs"),
        ("trainer.utilisation=0", "trainer.utilisation=0.0 (command line): must be above 0"),
    ],
)
def test_options_that_cannot_work_are_told(
    setting: str,
    said: str,
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if setting.startswith("trainer.fused") and torch.cuda.is_available():
        pytest.skip("it can work here")
    assert main(start_from(pretrained("llama"), setting)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said.split("=")[0] in line and said.split(": ")[-1] in line
