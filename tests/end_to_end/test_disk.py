"""A disk that is full or read-only is told in one line and costs nothing that was finished."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from replay_sweeps.main import main
from replay_sweeps.store import command as store_command
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

    def put(self: Store, *_: object) -> None:
        raise OSError(30, "Read-only file system", str(self.folder))

    share_text(whole, tmp_path / "output")
    monkeypatch.setattr(Store, "put", put)
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


@pytest.mark.slow
def test_the_store_is_listed_and_what_no_study_refers_to_is_dropped(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    for name, target in (("one", []), ("two", ["target.max_documents=150"])):
        given = command(f"paths.store={store}", "schedule.replay_fraction=0,0.5", *target, output=name)
        assert main(given) == 0
    given = ["--store", str(store)]
    assert store_command.main(["list", *given]) == 0
    assert capsys.readouterr().out.count("complete") == 2
    assert store_command.main(["gc", *given]) == 0
    assert capsys.readouterr().out == "dropped 0 states, 0 records, 0 folders of text, 0.0 MB\n"
    (tmp_path / "two").rename(tmp_path / "away")
    assert store_command.main(["gc", *given, "--dry-run"]) == 0
    assert store_command.main(["gc", *given]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].replace("would drop", "dropped") == said[2] and "dropped 2 states" in said[2]
    assert "4 folders of text" in said[2]  # of the target that only the second study had: cleaned, and its three parts
    assert said[3].startswith("forgot single")
    assert main(command(f"paths.store={store}", "schedule.replay_fraction=0,0.5", output="one")) == 0
    assert "runs 0/" not in capsys.readouterr().err


def test_text_that_is_being_made_is_not_collected(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from replay_sweeps.data import prepare
    from replay_sweeps.models import numerics

    store, seen = tmp_path / "output" / "store", []
    run = prepare.Preparation.run

    def prepared(*given: Any) -> Any:
        made = run(*given)
        seen.append((store_command.main(["gc", "--store", str(store)]), capsys.readouterr().err))
        return made

    def laid_out(*given: Any) -> Any:
        seen.append((store_command.main(["gc", "--store", str(store)]), capsys.readouterr().out))
        raise KeyboardInterrupt  # before any state

    monkeypatch.setattr(prepare.Preparation, "run", prepared)
    monkeypatch.setattr(numerics, "measured_rates", laid_out)
    with pytest.raises(SystemExit):
        main(command(*GRID))
    busy, between = seen
    assert busy[0] == 1 and busy[1].splitlines()[-1] == (
        f"replay-store: text is being prepared in {store / 'text'}; try again when it is done"
    )
    assert between == (0, "dropped 0 states, 0 records, 0 folders of text, 0.0 MB\n")
    assert list((store / "text" / "tokens").iterdir())


@pytest.mark.parametrize("wanted", [["gc"], ["export", "run", "folder"]])
def test_a_store_command_says_in_one_line_that_a_disk_is_in_the_way(
    wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "there")

    monkeypatch.setattr(store_command, "export_run", refuse)
    monkeypatch.setattr(store_command, "references", refuse)
    assert store_command.main([*wanted, "--store", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "replay-store: there cannot be written (Permission denied): give a folder that can\n"
    )
