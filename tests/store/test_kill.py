"""A worker that is killed at any write: the run that counts as done has its weights, and the rest is trained again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from replay_sweeps.store.leases import Leases
from replay_sweeps.store.leftovers import clear_half_written
from replay_sweeps.store.states import Store
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.state_name import StateName
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.workers.work_order import PoolSettings
from replay_sweeps.workers.worker import PathWorker
from tests.fixtures.studies import FakeTraining

pytestmark = pytest.mark.slow

GRID = ["schedule.replay_fraction=0,0.5", "schedule.target_epochs=4", "trainer.waypoints=0"]
WRITES = ("fsync", "rename", "replace", "unlink", "rmdir")
KILLED, DONE = 9, 0


def end_of(run: PlannedRun) -> StateName:
    return StateName(run.root, run.steps, run.key(run.steps))


def train(plan: StudyPlan, store: Path, keep: str, before_write: Callable[[], None]) -> None:
    """Train a study as a worker does; `before_write` is called before each call that changes the disk."""

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*given: Any, **named: Any) -> Any:
            before_write()
            return None if call is fsync else call(*given, **named)

        return made

    fsync = os.fsync
    training = FakeTraining(Store(store))
    worker = PathWorker(
        StudyStatus(plan.tree, training.store),
        Leases(store, "a"),
        training,
        pool=PoolSettings(keep=keep),  # type: ignore[arg-type]
    )
    patches = [patch.object(os, name, counted(getattr(os, name))) for name in WRITES]
    for each in patches:
        each.start()
    try:
        worker.work()
    finally:
        for each in patches:
            each.stop()


def killed_at(write: int, plan: StudyPlan, store: Path, keep: str) -> bool:
    """Train in a process of its own that is killed at its n-th write; whether it was killed before the end."""
    pid = os.fork()
    if pid == 0:
        left = [write]

        def count() -> None:
            left[0] -= 1
            if not left[0]:
                os._exit(KILLED)  # no `finally` is run: as after SIGKILL

        try:
            train(plan, store, keep, count)
            os._exit(DONE)
        except BaseException:
            os._exit(3)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (KILLED, DONE)
    return code == KILLED


def without_weights(plan: StudyPlan, store: Path) -> list[str]:
    """The runs that count as done and whose weights are not there, or are not whole."""
    kept = Store(store)
    status = StudyStatus(plan.tree, kept)
    done = status.done(status.missing())
    found = []
    for run in done:
        state = end_of(plan.tree.runs[run])
        if not kept.has_weights(state) or kept.open_state(state) is None:
            found.append(state.path)
    return found


@pytest.mark.parametrize(("keep", "stride"), [("leaves", 1), ("all", 4)])
def test_a_run_that_is_done_has_its_weights_wherever_the_worker_was_killed(
    keep: str, stride: int, plan_of: Callable[..., StudyPlan], tmp_path: Path
) -> None:
    plan, write = plan_of(*GRID), 1
    train(plan, tmp_path / "whole", keep, lambda: None)  # the children take over the keys that are worked out here
    while True:
        store = tmp_path / str(write)
        was_killed = killed_at(write, plan, store, keep)
        assert without_weights(plan, store) == [], f"killed at write {write}"
        clear_half_written(Store(store))
        train(plan, store, keep, lambda: None)
        status = StudyStatus(plan.tree, Store(store))
        assert not any(status.missing()) and without_weights(plan, store) == []
        assert len(status.done(status.missing())) == len(plan.runs)
        assert Leases(store, "b").held() == {}
        assert list(store.rglob(".*.tmp")) == []
        if not was_killed:
            break
        write += stride
    assert write > 30


def test_weights_that_are_replaced_by_a_whole_state_are_never_missing_from_a_run_that_is_done(
    plan_of: Callable[..., StudyPlan], tmp_path: Path
) -> None:
    """The end of a run was kept without its optimizer; now it is saved again so that training can go on from it."""
    plan = plan_of(*GRID)
    first, state = tmp_path / "first", end_of(plan.runs[0])
    train(plan, first, "leaves", lambda: None)
    record = Store(first).segment_record(state)
    assert record
    Store(first).drop_state(state)
    Store(first).save_state(state, record, lambda f: (f / "model.safetensors").write_bytes(b"w") and None, False)
    assert Store(first).has_weights(state) and not Store(first).is_resumable(state)
    write = 1
    while True:
        store = tmp_path / str(write)
        shutil.copytree(first, store)
        pid = os.fork()
        if pid == 0:
            left = [write]

            def counted(call: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
                def made(*given: Any, **named: Any) -> Any:
                    left[0] -= 1
                    if not left[0]:
                        os._exit(KILLED)
                    return call(*given, **named)

                return made

            for name in WRITES:
                setattr(os, name, counted(getattr(os, name)))
            kept = Store(store)
            kept.save_state(state, record, lambda f: (f / "model.safetensors").write_bytes(b"all") and None, True)
            os._exit(DONE if kept.is_resumable(state) else 3)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (KILLED, DONE) and without_weights(plan, store) == [], f"killed at write {write}"
        if code == DONE:
            break
        write += 1
    assert write > 8


def test_a_state_without_its_record_is_adopted_when_it_is_reached_again(
    plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    plan = plan_of(*GRID)
    end = end_of(plan.runs[0])
    train(plan, training.store.folder, "leaves", lambda: None)
    (training.store.folder / "records" / f"{end.path}.json").unlink()
    status = StudyStatus(plan.tree, training.store)
    assert any(status.missing()) and 0 not in status.done(status.missing())
    before = (training.store.folder / "states" / end.path).stat().st_ino
    train(plan, training.store.folder, "leaves", lambda: None)
    status.refresh()
    assert not any(StudyStatus(plan.tree, training.store).missing()) and training.store.segment_record(end)
    assert (training.store.folder / "states" / end.path).stat().st_ino == before
