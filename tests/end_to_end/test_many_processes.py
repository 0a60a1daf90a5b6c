"""One model on two processes (gloo): copies and shards end in the same bits, killed or not; any state serves any."""

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.main import main
from replay_sweeps.progress import Progress
from replay_sweeps.training.batches import Batches
from replay_sweeps.tree.paths import Segment
from replay_sweeps.workers.rank_group import RankFailed, RankGroup
from replay_sweeps.workers.work_order import WorkOrder
from replay_sweeps.workers.worker_context import WorkerContext
from tests.fixtures.outputs import assert_same_tables, history, states, tensors
from tests.fixtures.processes import run_forked, signal_at
from tests.fixtures.shared import MadeOnce, finish, share_text

GRID = ["schedule.replay_fraction=0,0.75", "trainer.threads=1", "trainer.precision=fp32"]
SHARDED = ["trainer.devices=2", "trainer.strategy=fsdp", "trainer.micro_batch_rows=4"]
COPIED = ["trainer.devices=2", "trainer.micro_batch_rows=4"]
ALONE = ["trainer.micro_batch_rows=4"]
ROUNDING = 1e-4  # relative: other sums in fp32 (1e-7), which 64 steps of Adam make grow


def assert_same(output: Path, other: Path) -> None:
    """The two outputs hold the same runs and the same states, moments included, to the bit."""
    assert_same_tables(output, other)
    ours, theirs = states(output), states(other)
    assert len(ours) > 2 and ours.keys() == theirs.keys()
    for name, folder in ours.items():
        mine, yours = tensors(folder), tensors(theirs[name])
        assert mine.keys() == yours.keys()
        assert all(torch.equal(tensor, yours[part]) for part, tensor in mine.items())


def assert_close(output: Path, other: Path) -> None:
    ours, theirs = (pd.read_parquet(folder / "runs.parquet").set_index("run_id") for folder in (output, other))
    columns = ["target_loss", "generic_loss", "target_loss_selection", "target_train_loss"]
    np.testing.assert_allclose(ours[columns], theirs.loc[ours.index, columns], rtol=ROUNDING)


@pytest.fixture(scope="session")
def alone(small_command: Callable[..., list[str]], made_once: MadeOnce) -> Path:
    """The output of the grid, trained in one process."""
    return made_once("alone", lambda folder: finish(small_command(folder, *GRID, *ALONE)))


@pytest.fixture(scope="session")
def sharded(small_command: Callable[..., list[str]], made_once: MadeOnce, alone: Path) -> Path:
    """The output of the grid, trained in shards by two processes."""
    return made_once("sharded", lambda folder: finish(small_command(folder, *GRID, *SHARDED), text_of=alone))


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> list[int]:
    """Call `act` before the step of this number is counted; the steps that are trained from now on."""
    stepped, steps = Progress.stepped, []

    def counted(self: Progress, tokens: int) -> None:
        steps.append(tokens)
        if len(steps) == number:
            act()
        stepped(self, tokens)

    monkeypatch.setattr(Progress, "stepped", counted)
    return steps


@pytest.mark.slow
def test_shards_and_copies_end_in_the_same_bits(
    command: Callable[..., list[str]],
    tmp_path: Path,
    alone: Path,
    sharded: Path,
) -> None:
    share_text(alone, tmp_path / "copied")
    assert main(command(*GRID, *COPIED, output="copied")) == 0
    assert_same(tmp_path / "copied", sharded)
    assert_close(sharded, alone)
    for folder in states(sharded).values():
        files = {file.name for file in folder.iterdir()} - {"state.json"}
        assert len(files) == 2 and all(safe_open(folder / file, "pt").keys() for file in files)  # nothing pickled
    steps = [history(output).query("metric == 'train_generic_loss' and step == 0").value for output in (sharded, alone)]
    np.testing.assert_allclose(*steps, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whole_group", "number"), [(False, signal.SIGKILL), (True, signal.SIGINT)], ids=["killed", "interrupted"]
)
def test_ended_half_way_and_run_again_it_ends_in_the_same_bits(
    whole_group: bool,
    number: int,
    command: Callable[..., list[str]],
    tmp_path: Path,
    alone: Path,
    sharded: Path,
) -> None:
    share_text(alone, tmp_path / "output")
    before = partial(signal_at, "replay_sweeps.progress:Progress.stepped", 40, number, whole_group)
    ended = run_forked(command(*GRID, *SHARDED), before=before)
    assert "reached" in ended.stderr
    assert ended.returncode == (130 if number == signal.SIGINT else -number), ended.stderr
    assert main(command(*GRID, *SHARDED)) == 0
    assert_same(tmp_path / "output", sharded)


@pytest.mark.slow
def test_when_another_rank_is_killed_a_new_group_goes_on_to_the_same_bits(
    command: Callable[..., list[str]],
    tmp_path: Path,
    alone: Path,
    sharded: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill_the_other() -> None:
        [rank] = multiprocessing.active_children()
        rank.kill()

    steps = at_step(monkeypatch, 40, kill_the_other)
    share_text(alone, tmp_path / "output")
    assert main(command(*GRID, *SHARDED)) == 0
    assert "rank 1 was ended by SIGKILL" in capsys.readouterr().err
    assert 64 < len(steps) < 2 * 64
    assert_same(tmp_path / "output", sharded)


@pytest.mark.slow
def test_four_copies_that_were_interrupted_end_in_the_bits_of_four_shards_that_were_not(
    command: Callable[..., list[str]],
    tmp_path: Path,
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    four = ["schedule.replay_fraction=0.75", *GRID[1:], "trainer.devices=4", "trainer.micro_batch_rows=2"]
    for name in ("copied", "sharded"):
        share_text(alone, tmp_path / name)
    assert main(command(*four, "trainer.strategy=fsdp", output="sharded")) == 0
    steps = at_step(monkeypatch, 40, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit, match="130"):
        main(command(*four, output="copied"))
    assert main(command(*four, output="copied")) == 0
    assert len(steps) == 64
    assert_same(tmp_path / "copied", tmp_path / "sharded")


@pytest.mark.slow
def test_tasks_that_a_launcher_starts_train_together(
    command: Callable[..., list[str]],
    tmp_path: Path,
    alone: Path,
    sharded: Path,
) -> None:
    pytest.importorskip("submitit")
    share_text(alone, tmp_path / "output")
    tasks = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", "workers=1"]
    assert main(command(*GRID, *SHARDED, *tasks)) == 0
    assert_same(tmp_path / "output", sharded)
    assert len(list((tmp_path / "output" / "logs").iterdir())) >= 2


@pytest.mark.slow
def test_why_another_rank_failed_is_said(sharded: Path, tmp_path: Path) -> None:
    order = json.loads((sharded / "work.json").read_text())
    (tmp_path / "work.json").write_text(json.dumps({**order, "keys": "others"}))
    group = RankGroup(tmp_path / "work.json", sharded)
    with pytest.raises(RankFailed, match=r"^rank 1: CannotGoOn: the worker on .* would name states otherwise"):
        group.start_or_reuse(WorkOrder.read(tmp_path / "work.json").runs[0].trainer)


@pytest.mark.slow
def test_a_state_of_shards_is_resumed_by_one_process_and_the_other_way_round(
    command: Callable[..., list[str]],
    tmp_path: Path,
    alone: Path,
    sharded: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = at_step(monkeypatch, 0, lambda: None)
    more = ["schedule.replay_fraction=0,0.5,0.75", *GRID[1:]]
    for name, before, settings in (("one", sharded, ALONE), ("two", alone, SHARDED)):
        shutil.copytree(before, tmp_path / name)
        steps.clear()
        assert main(command(*more, *settings, output=name)) == 0
        assert 0 < len(steps) < 40  # of 64: the trunk was there
        assert "mixes numerics" in capsys.readouterr().err
    assert_close(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_the_ranks_see_together_the_rows_that_one_process_sees(alone: Path) -> None:
    context = WorkerContext(WorkOrder.read(alone / "work.json"))
    run = context.tree.runs[-1]
    work = Segment(run, run.steps - 3, run.steps, {}, {})

    def rows(micro_rows: int, *ranks: Ranks) -> list[tuple[int, list[tuple[bytes, bool, float]]]]:
        """For each step its rows, and each row's share of the step's loss."""
        seen: dict[int, list[tuple[bytes, bool, float]]] = {}
        for one in ranks or (Ranks(),):
            batches = Batches(work, context.texts.stores(), micro_rows, one)
            for batch in batches:
                share = batch["weight"] / (batches.micro_batches * one.world)
                parts = zip(batch["tokens"], batch["is_target"], share, strict=True)
                seen.setdefault(batch["step"], []).extend((t.numpy().tobytes(), bool(i), float(w)) for t, i, w in parts)
        return [(step, sorted(found)) for step, found in seen.items()]

    assert rows(16) == rows(4) == rows(4, Ranks(0, 2), Ranks(1, 2)) == rows(2, *(Ranks(rank, 4) for rank in range(4)))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["trainer.devices=3"], "trainer.batch_rows=16 .*: must be a multiple of 3, .* the nearest are 15 or 18"),
        (
            ["trainer.devices=2", "trainer.micro_batch_rows=3"],
            r"trainer.micro_batch_rows=3 \(command line\): must divide .* 2 devices computes 8; (2|4) does",
        ),
        (["trainer.devices=0"], r"trainer.devices=0 \(command line\): must be at least 1"),
        (["trainer.nodes=2"], r"trainer.nodes=2 \(command line\): needs hydra/launcher=submitit_slurm .*nodes=2"),
        (
            ["trainer.devices=4", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"],
            r"trainer.devices=4 \(command line\): needs .*tasks_per_node=4: the launcher starts 2 processes",
        ),
    ],
    ids=["batch", "micro-batch", "devices", "nodes", "tasks"],
)
def test_what_cannot_be_shared_is_said_in_one_line(
    settings: list[str], line: str, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(*settings)) == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("replay-sweep: ")]
    assert len(said) == 1 and re.search(line, said[0]), said
