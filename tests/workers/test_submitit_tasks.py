"""Tasks that a launcher started together: none waits long for another that has ended."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.workers import rank_group, worker_process
from replay_sweeps.workers.rank_group import RankFailed, RankGroup, TasksLost
from replay_sweeps.workers.submitit_tasks import SubmititTask
from replay_sweeps.workers.work_order import PoolSettings, WorkOrder


def task(rank: int) -> SubmititTask:
    return SubmititTask(Ranks(rank, 2, rank), "7-0")


def test_where_rank_0_trains_nothing_the_other_tasks_end_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "work.json"
    another = "of another machine"
    WorkOrder(tmp_path / "store", tmp_path, "a", False, False, PoolSettings(), {}, another, (), ()).write(file)
    monkeypatch.setattr(worker_process, "current_task", lambda: task(0))
    said = worker_process.work(file)
    assert said and said["fatal"] and "would name states otherwise" in said["line"]
    monkeypatch.setattr(worker_process, "current_task", lambda: task(1))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits for rank 0"))
    assert worker_process.work(file) is None


def test_tasks_that_did_not_come_up_are_not_waited_for_by_the_next_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan_of: Callable[..., StudyPlan]
) -> None:
    start_store = SubmititTask.start_store

    def with_a_task_that_fails(self: SubmititTask, rendezvous: Path) -> dist.TCPStore:
        store = start_store(self, rendezvous)
        store.set("failed/1", "CannotGoOn: no text")
        return store

    monkeypatch.setattr(SubmititTask, "start_store", with_a_task_that_fails)
    monkeypatch.setattr(rank_group, "current_task", lambda: task(0))
    trainer = replace(plan_of().runs[0].config.trainer, devices=2, accelerator="cpu")
    leader = RankGroup(tmp_path / "work.json", tmp_path)
    with pytest.raises(RankFailed, match="rank 1: CannotGoOn: no text"):
        leader.start_or_reuse(trainer)
    with pytest.raises(TasksLost):  # the next round brings new tasks
        leader.start_or_reuse(trainer)
