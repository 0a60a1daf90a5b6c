"""The practitioner's command: a model, a target, some generic text and a budget, to a recommendation."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main
from replay_sweeps.plan.budget import Costs, choose
from replay_sweeps.study.command import read_command
from replay_sweeps.study.study import hydra_loader, resolve_study
from replay_sweeps.tree.study_plan import plan_runs
from replay_sweeps.tree.target_size import with_target_tokens
from tests.fixtures.pretrained_model import write_small_model
from tests.fixtures.shared import MadeOnce

RHO = (0, Fraction(1, 2))


@pytest.fixture(scope="session")
def model(texts: tuple[Path, Path], made_once: MadeOnce) -> Path:
    """A small model and its tokenizer."""
    return made_once("small_model", lambda folder: write_small_model(folder, sorted(texts[0].glob("*.txt"))))


@pytest.fixture
def finetune(texts: tuple[Path, Path], model: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs study=finetune_pretrained on the small texts, at the tiny scale."""

    def run(*extra: str) -> int:
        given = [f"model.path={model}", f"generic.path={texts[0]}", f"target.path={texts[1]}", "evaluation.tokens=1024"]
        given += ["logger=csv", "study.analyze=false", f"paths.output={tmp_path / 'output'}"]
        return main(["study=finetune_pretrained", "+scale=tiny", *given, *extra])

    return run


def test_what_is_missing_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study=finetune_pretrained", "budget=soon"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all("needs a value" in line for line in lines)
    assert {line.split()[1] for line in lines} == {"model.path", "target.path", "generic.path"}


def test_a_budget_that_is_no_time_is_told(finetune: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune("budget=soon") == 2
    assert "budget=soon (command line): must be a time such as 90s, 45m, 2h or 1d" in capsys.readouterr().err


def test_a_plan_within_an_unmeasured_budget_says_so_and_writes_nothing(
    finetune: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune("budget=1m", "plan=true") == 0
    assert "what fits is decided when a few steps have been measured" in capsys.readouterr().out
    assert finetune("budget=1s", "plan=json", "trainer.peak_tflops=1e-6") == 2
    said = capsys.readouterr().err
    assert "is too little for the least that answers the question" in said and "would fit: budget=" in said
    assert not (tmp_path / "output").exists()


def test_swept_epochs_are_the_same_in_both_arms_and_the_questions_keep_their_order(
    texts: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    given = [f"model.path={model}", f"generic.path={texts[0]}", f"target.path={texts[1]}", "+scale=tiny"]
    with hydra_loader() as loader:
        command = ["study=finetune_pretrained", *given, f"paths.output={tmp_path}", "schedule.target_epochs=1,2,4"]
        study = resolve_study(read_command(command, loader), loader)
    runs = with_target_tokens(study.runs, None)
    planned = plan_runs(runs, None, None)
    grids = [study.grid_of(run) for run in runs]
    assert grids == sorted(grids) and runs[-1].schedule.stage2 != runs[0].schedule.stage2
    roots, stores = {run.root for run in planned}, {o.store for run in planned for o in run.observations}
    costs = Costs(
        dict.fromkeys(roots, 1.0), dict.fromkeys(roots, 0.0), dict.fromkeys(roots, 0.0), dict.fromkeys(stores, 1)
    )
    whole = choose(planned, costs, 1e9, grids=grids).seconds
    for share in (0.1, 0.2, 0.3):
        kept = [runs[index].schedule for index in choose(planned, costs, share * whole, grids=grids).kept]
        assert {run.replay_fraction for run in kept} == {*RHO}  # how much replay is a later question
        arms = [{r.target_epochs for r in kept if (r.replay_fraction, r.target_share) == (rho, 1)} for rho in RHO]
        assert arms[0] == arms[1] != set()


@pytest.mark.slow
def test_the_grid_fits_the_budget_and_stays_the_same_when_the_command_is_given_again(
    finetune: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune("budget=15s", "schedule.target_share=1/32,1/64") == 0
    said = capsys.readouterr().err
    assert "runs fit" in said and "measured over 3 steps" in said
    runs = pd.read_parquet(tmp_path / "output/runs.parquet")
    assert set(runs.status) == {"done"} and 0.0 in set(runs.replay_fraction) != {0.0}
    study = json.loads((tmp_path / "output/study.json").read_text())
    assert study["budget"]["budget"] == "15s"
    for file in (tmp_path / "output/store/timings").glob("*.json"):
        file.unlink()  # what is measured now may differ: the decision must not
    assert finetune("budget=15s", "schedule.target_share=1/32,1/64") == 0
    said = capsys.readouterr().err
    assert "measuring" not in said
    again = pd.read_parquet(tmp_path / "output/runs.parquet")
    assert list(again.run_id) == list(runs.run_id)
    assert finetune("budget=1s", "schedule.target_share=1/32,1/64", "plan=json") == 0
    assert json.loads(capsys.readouterr().out)["done"] >= len(runs)  # what is done costs nothing
