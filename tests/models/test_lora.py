"""LoRA: adapters alone are trained and kept, beside weights that stay where they were."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open

from replay_sweeps.config import ModelConfig
from replay_sweeps.main import main
from replay_sweeps.models.flops import adapter_parameters, flops_per_token
from replay_sweeps.models.pretrained import with_pretrained_shape
from tests.fixtures.shared import finish

from .test_architectures import config_of


def losses(output: Path) -> tuple[float, float]:
    """The target loss before and after training, of a study of one run."""
    [run] = pd.read_parquet(output / "runs.parquet").to_dict("records")
    history = pd.read_parquet(output / "history.parquet")
    assert run["status"] == "done", run["reason"]
    return history[(history.step == 0) & (history.metric == "target_loss")].value.item(), run["target_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "targets"), [("llama", "all-linear"), ("gpt2", "c_attn"), ("qwen2", "q_proj,v_proj")])
def test_adapters_begin_as_nothing_and_lower_the_loss(
    kind: str,
    targets: str,
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    tmp_path: Path,
    pretrained_text: Path,
) -> None:
    folder = pretrained(kind)
    lora = ["model.lora_rank=4", f'model.lora_targets="{targets}"', "schedule.stage2.peak=1e-2"]
    finish(start_from(folder, f"paths.output={tmp_path / 'lora'}", *lora), text_of=pretrained_text)
    full = start_from(folder, f"paths.output={tmp_path / 'full'}", "schedule.stage2.peak=1e-3")
    finish(full, text_of=pretrained_text)
    before, after = losses(tmp_path / "lora")
    assert before == pytest.approx(losses(tmp_path / "full")[0], abs=1e-6) and after < before - 0.01
    [state] = (tmp_path / "lora" / "store" / "states").glob("*/*/model.safetensors")
    with safe_open(state, "np") as file:
        names = set(file.keys())
        count = sum(file.get_tensor(name).size for name in names)
    assert names and all("lora_" in name for name in names)
    assert count == adapter_parameters(config_of(folder, lora_rank=4, lora_targets=targets))


def test_the_seed_draws_the_adapters(pretrained: Callable[[str], Path]) -> None:
    from replay_sweeps.models.build import build_model, initialise

    def adapters(seed: int) -> dict[str, torch.Tensor]:
        model = config_of(pretrained("llama"), lora_rank=2, init_seed=seed)
        network = build_model(model, 448)
        initialise(network, model)
        return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}

    one, again, other = adapters(0), adapters(0), adapters(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert all((one[name] == 0).all() for name in one if "lora_B" in name)


def test_adapters_name_a_state_only_where_there_are_any(
    pretrained: Callable[[str], Path], start_from: Callable[..., list[str]]
) -> None:
    from replay_sweeps.study.command import read_command
    from replay_sweeps.study.study import hydra_loader, resolve_study
    from replay_sweeps.tree.planned_run import initial_weights

    def named(*settings: str) -> dict[str, object]:
        with hydra_loader() as loader:
            study = resolve_study(read_command(start_from(pretrained("llama"), *settings), loader), loader)
        return initial_weights(study.runs[0], 448)

    assert set(named()) == {"pretrained"} and named() == named("model.init_seed=3")
    assert named("model.lora_rank=4") == named("model.lora_rank=4", "model.lora_alpha=8")
    distinct = [("4", "8", "0"), ("4", "16", "0"), ("8", "8", "0"), ("4", "8", "1")]
    found = [
        named(f"model.lora_rank={rank}", f"model.lora_alpha={alpha}", f"model.init_seed={seed}")
        for rank, alpha, seed in distinct
    ]
    assert len({str(name) for name in found}) == 4


def test_frozen_matrices_cost_four_operations_a_weight(pretrained: Callable[[str], Path]) -> None:
    def flops(**lora: object) -> float:
        return flops_per_token(with_pretrained_shape(config_of(pretrained("llama"), **lora)), 448, 32)

    assert 4 / 6 * flops() < flops(lora_rank=1) < flops()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.lora_rank=0"], "model.lora_rank=0 (command line): must be positive"),
        (["model.lora_alpha=4"], "has no effect without model.lora_rank"),
        (
            ["model.lora_rank=2", "model.lora_targets=query"],
            "there is no matrix query in the model to adapt; there are: down_proj",
        ),
        (
            ["model.lora_rank=2", "model.lora_targets=embed_tokens"],
            "there is no matrix embed_tokens in the model to adapt; there are: down_proj",
        ),
    ],
)
def test_wrong_settings_of_adapters_are_told(
    settings: list[str],
    said: str,
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(start_from(pretrained("llama"), *settings)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_adapters_without_a_model_to_adapt_are_told(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("model.lora_rank=2")) == 2
    assert "needs a pretrained model to adapt" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_merged_adapters_give_the_same_logits(kind: str, pretrained: Callable[[str], Path]) -> None:
    from replay_sweeps.models.build import build_model
    from replay_sweeps.models.lora import merge_adapters

    model: ModelConfig = config_of(pretrained(kind), lora_rank=3)
    network = build_model(model, 448)
    torch.manual_seed(1)
    names = set(dict(network.named_parameters()))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
        tokens = torch.arange(24)[None]
        adapted = network(tokens).logits
        merge_adapters(network)
        assert torch.allclose(network(tokens).logits, adapted, atol=1e-5)
    assert not any("lora" in name for name in dict(network.named_parameters())) and len(names) > 20


@pytest.mark.slow
def test_a_run_that_goes_on_from_anothers_adapters_ends_in_the_same_bits(
    pretrained: Callable[[str], Path], start_from: Callable[..., list[str]], tmp_path: Path, pretrained_text: Path
) -> None:
    folder, lora = pretrained("llama"), ["model.lora_rank=4", "schedule.stage2.peak=1e-2"]
    for name, epochs in (("alone", "2"), ("shared", "1,2")):
        given = start_from(folder, f"paths.output={tmp_path / name}", *lora, f"schedule.target_epochs={epochs}")
        finish(given, text_of=pretrained_text)
    shared = pd.read_parquet(tmp_path / "shared" / "runs.parquet").set_index("target_epochs")
    assert shared.loc[2].target_loss == losses(tmp_path / "alone")[1]
    states = list((tmp_path / "shared" / "store" / "records").glob("*/*.json"))
    assert len(states) > len(list((tmp_path / "alone" / "store" / "records").glob("*/*.json")))
