"""Made-up studies on disk, once a session."""

from pathlib import Path

import pytest

from analysis import analyse, load_runs
from analysis.findings.evidence import Evidence, read_evidence
from analysis.findings.study import Findings, Settings
from analysis.simulate import simulate_runs
from tests.analysis.helpers import FULL_SETTINGS, full_study, write_study


@pytest.fixture(scope="session")
def full_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("full") / "study", full_study(), FULL_SETTINGS)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of a quickstart: a tuned curve, replay at one size, two seeds."""
    runs = simulate_runs(replay_tokens=(8192,), seeds=2, seed=3)
    return write_study(tmp_path_factory.mktemp("small") / "study", runs)


@pytest.fixture(scope="session")
def full_evidence(full_folder: Path) -> Evidence:
    """The findings of the study that supports every figure, with its history."""
    return read_evidence(analyse(load_runs(full_folder), Settings(n_resamples=500)), full_folder)


@pytest.fixture(scope="session")
def small_findings(small_folder: Path) -> Findings:
    return analyse(load_runs(small_folder), Settings(n_resamples=200))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures, for tests that look at something else."""
    monkeypatch.setattr("analysis.report.figures.DRAWERS", ())
