"""What launchers are measured against: the same small grid, trained in process."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from replay_sweeps.main import main
from tests.conftest import ROOT, arguments

GRID = ["schedule.replay_fraction=0,0.5,0.75", "trainer.threads=1"]


@pytest.fixture(scope="session")
def whole(texts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the grid, trained in process and never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "output"
    assert main(arguments(texts, folder, *GRID)) == 0
    return folder


@pytest.fixture
def grid(
    command: Callable[..., list[str]], tmp_path: Path, share_text: Callable[[Path, Path], None], whole: Path
) -> list[str]:
    """The command of the grid; its text is prepared."""
    share_text(whole, tmp_path / "output")
    return command(*GRID)


def run(
    given: Sequence[str], program: Sequence[str] = ("-m", "replay_sweeps.main"), **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, on one thread."""
    return subprocess.run(
        [sys.executable, *program, *given], capture_output=True, text=True, timeout=300, env=inherited(**environment)
    )


def inherited(**more: str) -> dict[str, str]:
    """The environment of a command: this checkout first on the path, one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
