"""Every shipped study composes, fits and plans, at its own scale and at the tiny one."""

import json
from pathlib import Path

import pytest

from replay_sweeps.main import main
from replay_sweeps.study.command import choices
from tests.fixtures.pretrained_model import write_small_model
from tests.fixtures.shared import MadeOnce


@pytest.fixture(scope="session")
def own(texts: tuple[Path, Path], made_once: MadeOnce) -> dict[str, list[str]]:
    """What a study needs of its user."""
    text = sorted(texts[0].glob("*.txt"))
    model = made_once("model-of-long-rows", lambda folder: write_small_model(folder, text, positions=4096))
    paths = [f"generic.path={texts[0]}", f"target.path={texts[1]}"]
    return {
        "finetune_pretrained": [f"model.path={model}", *paths, "trainer.row_length=64"],
        "paper_basque": [f"model.path={model}"],  # in place of the hub's
    }


@pytest.mark.parametrize("scale", [[], ["+scale=tiny"]], ids=["full", "tiny"])
@pytest.mark.parametrize("study", choices("study"))
def test_a_shipped_study_plans(
    study: str, scale: list[str], own: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if study == "paper_basque" and scale else own.get(study, [])  # which then starts from new weights
    assert main([f"study={study}", *given, *scale, "plan=json"]) == 0, capsys.readouterr().err
    plan = json.loads(capsys.readouterr().out)
    assert plan["study"] == study
    assert 0 < plan["steps_shared"] <= plan["steps_alone"]
    assert bool(plan["altered"]) == bool(scale)


def test_a_study_whose_model_is_out_of_reach_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study=paper_basque", "plan=json"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "meta-llama/Llama-3.1-8B" in line and "conf/study/paper_basque.yaml" in line


@pytest.mark.slow
def test_small_models_keep_the_ratios_of_the_widths_and_depths_of_large_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["study=paper_model_scale", "+scale=tiny", "plan=json"]) == 0
    altered = {item["setting"]: item for item in json.loads(capsys.readouterr().out)["altered"]}
    for setting in ("hidden_size", "layers", "mlp_size"):
        changes = [altered[f"model.{setting} ({name})"] for name in ("150m", "300m", "600m", "1_9b")]
        assert len({item["from"] / item["to"] for item in changes}) == 1


@pytest.mark.parametrize("model", choices("model"))
def test_a_shipped_model_has_the_size_of_its_name(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    if model == "pretrained":
        pytest.skip("has the size of the model that it is given")
    assert main([f"model={model}", "plan=json"]) == 0
    count = json.loads(capsys.readouterr().out)["parameters"]
    unit = {"m": 1e6, "b": 1e9}[model[-1]]
    assert count == pytest.approx(float(model[:-1].replace("_", ".")) * unit, rel=0.35)  # names are round numbers
    if model == "8b":
        assert count == 8_030_261_248  # Llama 3.1 8B
