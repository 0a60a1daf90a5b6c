"""The pool on Slurm: through commands on PATH that behave as Slurm's do and run the submitted script for real."""

import os
from pathlib import Path

import pytest

from tests.fixtures.outputs import assert_same
from tests.fixtures.processes import run_anew

pytest.importorskip("submitit")


pytestmark = pytest.mark.slow


def test_jobs_train_the_grid_and_a_time_limit_ends_a_worker_cleanly(
    grid: list[str], tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    from .fake_slurm import install

    install(tmp_path / "bin")
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM_LIMIT": "1", "SLOW_STEPS": "0.1"}
    given = [*grid, "hydra/launcher=submitit_slurm", "workers=2", "hydra.launcher.timeout_min=1"]
    done = run_anew(given, ("-m", "tests.end_to_end.launchers.slow"), **environment)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "output", whole)
    jobs = {file.stem.partition("_")[0] for file in tmp_path.glob("*.job")}
    assert len(jobs) >= 3 and len(list(tmp_path.glob("*.limited"))) == 1
    logs = "".join(file.read_text() for file in (tmp_path / "output" / "logs").iterdir())
    assert "asked to stop; its last step is saved" in logs
