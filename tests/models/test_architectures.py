"""Any causal language model of `transformers` is counted, trained and measured as `transformers` itself would."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from replay_sweeps.config import ModelConfig, TokenizerConfig
from replay_sweeps.main import main
from replay_sweeps.models.flops import flops_per_token, matrix_parameters, parameters
from replay_sweeps.models.pretrained import ANY_LENGTH, with_pretrained_shape
from tests.fixtures.models import ARCHITECTURES, save_model
from tests.fixtures.shared import finish


def config_of(folder: Path | str, **settings: object) -> ModelConfig:
    return ModelConfig(name="any", path=str(folder), tokenizer=TokenizerConfig(path=str(folder)), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_row_losses_and_parameters_are_those_of_transformers(kind: str, pretrained: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    from replay_sweeps.models.build import build_model
    from replay_sweeps.models.row_loss import RowLoss

    model = with_pretrained_shape(config_of(pretrained(kind)))
    network = AutoModelForCausalLM.from_pretrained(pretrained(kind)).eval()
    tokens = torch.randint(0, 400, (3, 17), generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([network(input_ids=row[None], labels=row[None]).loss for row in tokens])
    ours = RowLoss(build_model(model, 448))(tokens)
    assert torch.allclose(ours, wanted, atol=1e-5), (ours, wanted)
    assert parameters(model, 448) == sum(parameter.numel() for parameter in network.parameters())
    tables = sum(
        module.weight.numel()
        for module in network.modules()
        if isinstance(module, torch.nn.Embedding) and not model.tie_embeddings
    )
    assert 0 < matrix_parameters(model, 448) <= parameters(model, 448) - tables
    assert flops_per_token(model, 448, 32) > 6 * matrix_parameters(model, 448) * (model.heads > 0)
    assert model.max_positions == (64 if kind not in ("mamba", "bloom") else ANY_LENGTH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "mamba"])
def test_a_model_without_the_names_of_llama_is_planned_and_trained(
    kind: str,
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    pretrained_text: Path,
) -> None:
    assert main(start_from(pretrained(kind), "plan=json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == parameters(config_of(pretrained(kind)), 448)
    output = finish(start_from(pretrained(kind)), text_of=pretrained_text)
    [run] = pd.read_parquet(output / "runs.parquet").to_dict("records")
    history = pd.read_parquet(output / "history.parquet")
    first = history[(history.step == 0) & (history.metric == "target_loss")].value.item()
    assert run["status"] == "done" and run["target_loss"] < first and run["parameters"] == plan["parameters"]


def test_weights_in_several_files_are_counted_once(tmp_path: Path, pretrained: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(pretrained("gpt_neox"))
    network.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert parameters(config_of(tmp_path), 448) == parameters(config_of(pretrained("gpt_neox")), 448)


def test_pickled_weights_are_loaded_only_where_that_is_allowed(tmp_path: Path) -> None:
    from replay_sweeps.models.build import build_model

    folder = save_model(tmp_path, "llama")
    wanted = build_model(config_of(folder), 448).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(wanted, folder / "pytorch_model.bin")
    model = config_of(folder, allow_pickle=True)
    found = build_model(model, 448).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert parameters(model, 448) > 0
