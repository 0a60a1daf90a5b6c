"""The pool on Slurm: through commands on PATH that behave as Slurm's do and run the submitted script for real."""

import os
from pathlib import Path

import pytest

from ..test_resume import assert_same
from .conftest import run

pytest.importorskip("submitit")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, "8"], ids=["time enough", "a time limit in the trunk"])
def test_jobs_train_the_grid_and_a_time_limit_ends_a_worker_cleanly(
    limit: str | None, grid: list[str], tmp_path: Path, whole: Path
) -> None:
    os.environ.setdefault("FAKE_SLURM", str(tmp_path))
    from .fake_slurm import install

    install(tmp_path / "bin")
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(tmp_path)}
    slow = []
    if limit:  # each step of the trunk takes long enough for the limit to come in the middle of it
        environment |= {"FAKE_SLURM_LIMIT": limit, "SLOW_STEPS": "0.2"}
        slow = ["trainer.save_every_minutes=60"]
    given = [*grid, *slow, "hydra/launcher=submitit_slurm", "workers=2", "hydra.launcher.timeout_min=1"]
    done = run(given, ("-m", "tests.launchers.slow"), **environment)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "output", whole)
    jobs = {file.stem.partition("_")[0] for file in tmp_path.glob("*.job")}
    limited = list(tmp_path.glob("*.limited"))
    assert len(jobs) >= (3 if limit else 2) and bool(limited) == bool(limit)
    if limit:
        logs = "".join(file.read_text() for file in (tmp_path / "output" / "logs").iterdir())
        assert "asked to stop; its last step is saved" in logs
