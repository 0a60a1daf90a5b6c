"""Every shipped study composes, fits and plans, at its own scale and at the tiny one."""

import json

import pytest

from replay_sweeps.command import choices
from replay_sweeps.main import main


@pytest.mark.parametrize("scale", [[], ["+scale=tiny"]], ids=["full", "tiny"])
@pytest.mark.parametrize("study", choices("study"))
def test_a_shipped_study_plans(study: str, scale: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"study={study}", *scale, "plan=json"]) == 0, capsys.readouterr().err
    plan = json.loads(capsys.readouterr().out)
    assert plan["study"] == study
    assert 0 < plan["steps_shared"] <= plan["steps_alone"]
    assert bool(plan["altered"]) == bool(scale)


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
