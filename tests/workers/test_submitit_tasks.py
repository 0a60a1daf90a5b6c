"""Tasks that a launcher started together: none waits long for another that has ended."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.interrupt import Interrupted
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.workers import rank_group, worker_process
from replay_sweeps.workers.rank_group import Group, RankFailed
from replay_sweeps.workers.submitit_tasks import Task
from replay_sweeps.workers.work_order import PoolSettings, WorkOrder


def task(rank: int) -> Task:
    return Task(Ranks(rank, 2, rank), "7-0")


def test_where_rank_0_trains_nothing_the_other_tasks_end_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "work.json"
    another = "of another machine"
    WorkOrder(tmp_path / "store", tmp_path, "a", False, False, PoolSettings(), {}, another, (), ()).write(file)
    monkeypatch.setattr(worker_process, "task", lambda: task(0))
    said = worker_process.work(file)
    assert said and said["fatal"] and "would name states otherwise" in said["line"]
    monkeypatch.setattr(worker_process, "task", lambda: task(1))
    began = time.monotonic()
    assert worker_process.work(file) is None and time.monotonic() - began < 5


def test_tasks_that_did_not_come_up_are_not_waited_for_by_the_next_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan_of: Callable[..., StudyPlan]
) -> None:
    host = Task.host

    def with_a_task_that_fails(self: Task, meeting: Path) -> dist.TCPStore:
        store = host(self, meeting)
        store.set("failed/1", "CannotGoOn: no text")
        return store

    monkeypatch.setattr(Task, "host", with_a_task_that_fails)
    monkeypatch.setattr(rank_group, "task", lambda: task(0))
    trainer = replace(plan_of().runs[0].config.trainer, devices=2, accelerator="cpu")
    leader = Group(tmp_path / "work.json", tmp_path)
    with pytest.raises(RankFailed, match="rank 1: CannotGoOn: no text"):
        leader.ready(trainer)
    with pytest.raises(Interrupted):  # the next round brings new tasks
        leader.ready(trainer)
