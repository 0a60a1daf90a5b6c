"""A budget for a study of several targets: their text is made together, whichever of them the budget leaves out."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main
from replay_sweeps.plan import decision
from replay_sweeps.plan.timing import Timing
from tests.conftest import write_text

pytestmark = pytest.mark.slow


@pytest.fixture
def two_targets(command: Callable[..., list[str]], texts: tuple[Path, Path], tmp_path: Path) -> list[str]:
    other = write_text(tmp_path / "other", 3, 200, 150)
    given = [item for item in command("trainer.compile=false") if not item.startswith("target.path=")]
    return [*given, f"target.path={texts[1]},{other}", "schedule.replay_fraction=0,0.5", "schedule.total_tokens=16384"]


def test_a_study_of_two_targets_runs_within_a_budget(
    two_targets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*two_targets, "budget=1h"]) == 0
    assert "4 of 4 runs fit" in capsys.readouterr().err
    runs = pd.read_parquet(tmp_path / "output/runs.parquet")
    assert list(runs.status) == ["done"] * 4


def test_a_target_that_the_budget_leaves_out_entirely_costs_the_other_nothing(
    two_targets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "read_timing", lambda *_: Timing(step=1.0, validation_token=0.0, path=0.0))
    assert main([*two_targets, "plan=json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps_shared"]
    given = [*two_targets, f"budget={(steps - 0.5) / 0.9:.1f}s"]
    assert main(given) == 0
    assert "2 of 4 runs fit" in capsys.readouterr().err
    runs = pd.read_parquet(tmp_path / "output/runs.parquet")
    assert list(runs.status) == ["done"] * 2 and set(runs.replay_fraction) == {0.0, 0.5}
    assert main(given) == 0
    capsys.readouterr()
    assert main([*given, "plan=json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["runs"] == plan["done"] == 2
