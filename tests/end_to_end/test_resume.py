"""Interrupted anywhere, the same command finishes with the same bits; what is done is not done again."""

import json
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main
from replay_sweeps.store.states import Store
from replay_sweeps.workers.sweeper import quoted
from tests.fixtures.grid import GRID
from tests.fixtures.outputs import assert_same, assert_same_tables, run_table
from tests.fixtures.processes import run_forked, signal_at
from tests.fixtures.shared import finish, share_text

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("function", "count", "number"),
    [
        ("os:fsync", 3, signal.SIGKILL),
        ("os:fsync", 40, signal.SIGKILL),
        ("os:fsync", 75, signal.SIGKILL),
        ("replay_sweeps.progress:Progress.stepped", 30, signal.SIGKILL),
        ("replay_sweeps.progress:Progress.stepped", 30, signal.SIGINT),
        ("replay_sweeps.progress:Progress.stepped", 70, signal.SIGTERM),
    ],
)
def test_an_interrupted_study_finishes_with_the_same_bits(
    function: str,
    count: int,
    number: int,
    command: Callable[..., list[str]],
    tmp_path: Path,
    whole: Path,
) -> None:
    if "stepped" in function:  # else the text is interrupted too
        share_text(whole, tmp_path / "output")
    stopped = run_forked(command(*GRID), before=partial(signal_at, function, count, number))
    assert "reached" in stopped.stderr
    if number == signal.SIGKILL:
        assert stopped.returncode == -signal.SIGKILL
    else:
        assert stopped.returncode == 130
        assert stopped.stderr.splitlines()[-1] == "replay-sweep: interrupted; the same command goes on from here"
    assert main(command(*GRID)) == 0
    assert_same(tmp_path / "output", whole)


def trained_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the steps that are trained from now on."""
    from replay_sweeps.progress import Progress

    steps: list[int] = []
    monkeypatch.setattr(Progress, "stepped", lambda self, tokens: steps.append(tokens))
    return steps


def test_the_same_command_again_trains_nothing_and_gives_the_same_table(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    finish(command(*GRID), text_of=whole)
    before = (tmp_path / "output" / "runs.csv").read_bytes()
    steps = trained_steps(monkeypatch)
    assert main(command(*GRID)) == 0
    assert steps == []
    assert (tmp_path / "output" / "runs.csv").read_bytes() == before
    assert_same(tmp_path / "output", whole)


def test_adding_a_value_trains_only_what_is_new_and_renames_nothing(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    whole: Path,
) -> None:
    finish(command("schedule.replay_fraction=0,0.75"), text_of=whole)
    store = tmp_path / "output" / "store"
    kinds = ("records", "observations", "states")
    before = {path: path.stat().st_mtime_ns for kind in kinds for path in (store / kind).rglob("*") if path.is_file()}
    more = command("schedule.replay_fraction=0,0.5,0.75")
    capsys.readouterr()
    assert main([*more, "plan=json"]) == 0
    left = json.loads(capsys.readouterr().out)["steps_left"]
    steps = trained_steps(monkeypatch)
    assert main(more) == 0
    # stage 2 of rho = 0.5 has 64 rows, 4 steps; waypoints of the trunk lie 16 steps apart
    assert 4 <= len(steps) == left <= 4 + 16
    after = {path: path.stat().st_mtime_ns for path in before if path.exists()}
    assert after.items() <= before.items()
    gone = before.keys() - after.keys()  # states that no branch waits for any more may be dropped, nothing else
    assert {path.relative_to(store).parts[0] for path in gone} <= {"states"}


@pytest.mark.parametrize("part", ["states", "records", "observations"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_whatever_is_damaged_in_the_store_is_made_again_with_the_same_bits(
    part: str, damage: str, command: Callable[..., list[str]], tmp_path: Path, whole: Path
) -> None:
    shutil.copytree(whole, tmp_path / "output")
    for number, file in enumerate(
        sorted(path for path in (tmp_path / "output/store" / part).rglob("*") if path.is_file())
    ):
        content = file.read_bytes()
        if damage == "remove":
            file.unlink()
        elif number % 2:
            file.write_bytes(content[: len(content) // 2] if damage == "truncate" else _flipped(content))
    (tmp_path / "output" / "runs.parquet").write_bytes(b"PAR1 damaged")
    # a final state that no run needs again is not read, so that its damage waits until it is
    assert main(command(*GRID)) == 0
    assert_same_tables(tmp_path / "output", whole)


def _flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 8
    return bytes(changed)


def test_a_damaged_state_is_trained_again_from_the_one_before_it(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: Path
) -> None:
    finish(command("schedule.replay_fraction=0", "trainer.threads=1"), text_of=whole)
    for file in (tmp_path / "output/store/states").rglob("model.safetensors"):
        file.write_bytes(_flipped(file.read_bytes()))
    assert main(command(*GRID)) == 0
    assert "does not match its checksum; it is trained again" in capsys.readouterr().err
    pd.testing.assert_frame_equal(run_table(tmp_path / "output"), run_table(whole), check_exact=True)
    assert list(Store(tmp_path / "output/store").kept_states())


def test_a_study_may_be_written_to_a_folder_of_any_name(command: Callable[..., list[str]], tmp_path: Path) -> None:
    name = "it's, {a} (name) = [1]"
    given = [item for item in command() if not item.startswith("paths.output=")]
    assert main([*given, f"paths.output={quoted(str(tmp_path / name))}"]) == 0
    assert set(pd.read_parquet(tmp_path / name / "runs.parquet").status) == {"done"}
