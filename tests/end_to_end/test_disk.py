"""A disk that is full or read-only is told in one line and costs nothing that was finished."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main
from tests.fixtures.outputs import TIMED
from tests.fixtures.shared import share_text

GRID = ["schedule.replay_fraction=0,0.5", "trainer.threads=1"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]).returncode:
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("replay-sweep: ")]


@pytest.mark.slow
def test_a_full_disk_then_a_read_only_one(
    small_disk: Path, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    given = command(*GRID, f"paths.store={small_disk / 'store'}")
    assert main([*given, "schedule.replay_fraction=0", "paths.output=" + str(small_disk.parent / "first")]) == 0
    with (small_disk / "fill").open("wb") as fill:  # leave some room, less than the states need
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        fill.write(b"0" * (free - 100_000))
    capsys.readouterr()
    assert main(given) == 1
    [line] = lines(capsys)
    assert "the disk is full" in line and "nothing that was finished is lost" in line
    (small_disk / "fill").unlink()
    assert main(given) == 0
    table = pd.read_csv(small_disk.parent / "output" / "runs.csv").drop(columns=TIMED)
    assert main([*given, f"paths.store={small_disk / 'other'}", f"paths.output={small_disk / 'out'}"]) == 0
    pd.testing.assert_frame_equal(table, pd.read_csv(small_disk / "out" / "runs.csv").drop(columns=TIMED))
    remount(small_disk, "ro")
    capsys.readouterr()
    assert main([*given, "schedule.replay_fraction=0,0.75"]) == 2
    [line] = lines(capsys)
    assert line.startswith("replay-sweep: paths.store=") and "cannot be written" in line
    assert main([*given, "schedule.replay_fraction=0,0.75", "plan=true"]) == 0  # a plan writes nothing
    assert "2 runs, 1 of them done" in capsys.readouterr().out
    remount(small_disk, "rw")


@pytest.mark.slow
def test_a_store_that_turns_read_only_is_one_line(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    whole: Path,
) -> None:
    from replay_sweeps.store.states import Store

    def save_state(self: Store, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(self.folder))

    share_text(whole, tmp_path / "output")
    monkeypatch.setattr(Store, "save_state", save_state)
    assert main(command(*GRID)) == 1
    [line] = lines(capsys)
    assert "store cannot be written (Read-only file system)" in line


@pytest.mark.slow
def test_a_run_whose_loss_is_not_finite_fails_alone(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: Path
) -> None:
    share_text(whole, tmp_path / "output")
    given = command("schedule.stage1.peak=3e-3,1e30", "trainer.threads=1")
    assert main(given) == 1
    runs = pd.read_csv(tmp_path / "output" / "runs.csv").set_index("stage1_lr")
    assert runs.status.to_dict() == {3e-3: "done", 1e30: "failed"}
    assert "NonFiniteLoss" in runs.reason[1e30] and "NonFiniteLoss" in runs.log[1e30]
    first, last = lines(capsys)[-2:]
    assert "NonFiniteLoss" in first and "schedule.stage1.peak=3e-3,1e30" in last
