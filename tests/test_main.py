"""How a study ends: with the answer, or with an exit code and a line that say there is none."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.simulate import simulate_runs
from replay_sweeps import main
from replay_sweeps.study.study import Study


@pytest.fixture
def study(study_of: Callable[..., Study], tmp_path: Path) -> Study:
    """A study whose runs are done, which ends with the analysis."""
    made = study_of("study=quickstart", "+scale=tiny")
    made.output.mkdir()
    runs = simulate_runs(target_tokens=(8192, 16384), replay_tokens=(8192,), epochs=(8,), seeds=1)
    runs.to_parquet(made.output / "runs.parquet")
    return made


def test_an_analysis_that_fails_is_told_and_is_no_success(study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    (study.output / "study.json").write_text("{")
    assert main._finish(study) == 1
    analysis, sweep = capfd.readouterr().err.splitlines()
    assert analysis.startswith("replay-analyze: ") and "study.json is no JSON" in analysis
    assert "ended without an answer (exit code 2)" in sweep and sweep.endswith(f"replay-analyze {study.output}")


def test_a_folder_named_analysis_where_the_command_is_typed_is_not_run(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here" / "analysis").mkdir(parents=True)
    (tmp_path / "here" / "analysis" / "__init__.py").write_text("")
    (tmp_path / "here" / "analysis" / "main.py").write_text("print('not ours')")
    monkeypatch.chdir(tmp_path / "here")
    (study.output / "study.json").write_text("{")  # ours stops here, early
    assert main._finish(study) == 1
    said = capfd.readouterr()
    assert "not ours" not in said.out and "study.json is no JSON" in said.err


def test_a_run_table_without_a_finished_run_is_not_analysed(study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    runs = pd.read_parquet(study.output / "runs.parquet")
    runs.assign(status="pending").to_parquet(study.output / "runs.parquet")
    assert main._finish(study) == 1
    assert "ended without an answer" not in capfd.readouterr().err
