"""Leases that lost workers left: the next command trains by itself, and a path that kills its workers is given up."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replay_sweeps.store import leases
from replay_sweeps.store.leases import LeaseOwner, Leases, heartbeat, read_lease
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.workers import pool as worker_pool
from replay_sweeps.workers.pool import WorkerPool
from replay_sweeps.workers.work_order import PoolSettings
from replay_sweeps.workers.worker import PathWorker
from tests.fixtures.studies import FakeTraining

GRID = ["schedule.replay_fraction=0,0.5", "schedule.target_epochs=4"]
GRACE = 0.3  # seconds

OWNER = LeaseOwner("x", "an earlier session", "another host", 1, 1, 0, "")


def text_of(owner: LeaseOwner) -> bytes:
    return heartbeat(3, 7) + owner.to_json()


def folder_in_place(file: Path) -> None:
    (file / "inside").mkdir(parents=True)


FAULTS: dict[str, Callable[[Path], Any]] = {
    "another host": lambda file: file.write_bytes(text_of(OWNER)),
    "another boot": lambda file: file.write_bytes(text_of(replace(OWNER, host=f"boot {os.getpid()}", pid=os.getpid()))),
    "empty": lambda file: file.write_bytes(b""),
    "half written": lambda file: file.write_bytes(text_of(OWNER)[:40]),
    "damaged head": lambda file: file.write_bytes(b"?" * 26 + OWNER.to_json()),
    "a list": lambda file: file.write_bytes(heartbeat(1, 1) + b"[1, 2]"),
    "deep": lambda file: file.write_bytes(heartbeat(1, 1) + b"[" * 60_000),
    "other kinds of values": lambda file: file.write_bytes(heartbeat(1, 1) + b'{"owner": 3, "session": []}'),
    "large": lambda file: file.write_bytes(b"x" * 100_000),
    "a folder": folder_in_place,
    "a pipe": os.mkfifo,
    "a loop of links": lambda file: file.symlink_to(file),
    "a link": lambda file: file.symlink_to("/dev/null"),
}


def pool_of(plan: StudyPlan, training: FakeTraining, session: str = "now", **patience: float) -> WorkerPool:
    """A pool whose workers run in this process, one after another; each has seen nothing when it starts."""
    folder, settings = training.store.folder, PoolSettings()

    def start(workers: int) -> Sequence[Any]:
        for _ in range(workers):
            status = StudyStatus(plan.tree, training.store)
            PathWorker(status, Leases(folder, session), training, pool=settings).work()
        return []

    status = StudyStatus(plan.tree, training.store)
    return WorkerPool(status, Leases(folder, session, **patience), settings, start)


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "LOOK_EVERY", 0.02)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lease_that_nobody_holds_does_not_end_a_study(
    fault: str, plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    plan = plan_of(*GRID)
    pool = pool_of(plan, training, grace_period=GRACE)
    claims = training.store.folder / "claims"
    claims.mkdir(parents=True)
    for index in range(len(plan.tree.paths)):
        FAULTS[fault](claims / plan.tree.lease_name(index))
    FAULTS[fault](claims / "worker-of-before")
    pool.run(None)
    assert not any(StudyStatus(plan.tree, training.store).missing())
    assert pool.leases.names() == []
    assert Path("/dev/null").exists()


@pytest.mark.parametrize("fault", [lambda f: f.write_text("x"), lambda f: f.symlink_to(f.parent / "x" / "y")])
def test_something_else_in_place_of_the_folder_of_leases(
    fault: Callable[[Path], Any], plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    from replay_sweeps.errors import CannotGoOn

    plan = plan_of(*GRID)
    claims = training.store.folder / "claims"
    training.store.folder.mkdir()
    fault(claims)
    if claims.is_symlink():  # the user's own link to a disk that is not there
        with pytest.raises(CannotGoOn, match="is a link that leads nowhere"):
            pool_of(plan, training).run(None)
    else:
        pool_of(plan, training).run(None)
        assert not any(StudyStatus(plan.tree, training.store).missing())


def test_a_living_worker_of_another_host_keeps_its_path(
    plan_of: Callable[..., StudyPlan], training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(*GRID)
    lease = Leases(training.store.folder, "other", heartbeat_interval=0.02).acquire(plan.tree.lease_name(0))
    assert lease
    monkeypatch.setattr(leases, "host_name", lambda: "this host")
    observer = Leases(training.store.folder, "now", grace_period=GRACE)
    for _ in range(20):
        observer.held()
        observer.clear_stale()
        time.sleep(0.03)
        assert read_lease(lease.file) is not None
    lease.stop_heartbeat()
    observer.clear_stale()
    time.sleep(GRACE + 0.1)
    observer.clear_stale()
    assert read_lease(lease.file) is None
    lease.release()


def test_a_path_that_kills_its_workers_on_other_hosts_is_given_up(
    plan_of: Callable[..., StudyPlan], training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count of lost workers goes from one to the next, though the observer made way for each of them."""
    plan = plan_of(*GRID)
    name, lost = plan.tree.lease_name(0), []
    observer = Leases(training.store.folder, "now", grace_period=GRACE)
    for number in range(3):
        with monkeypatch.context() as there:
            there.setattr(leases, "host_name", lambda number=number: f"host {number}")
            lease = Leases(training.store.folder, "now").acquire(name)
        assert lease
        lost.append(lease.owner.lost_workers)
        lease.stop_heartbeat()  # as a worker that is lost
        observer.clear_stale()
        time.sleep(GRACE + 0.1)
        observer.clear_stale()
        observer.clear_stale()
    assert lost == [0, 1, 2]
    pool_of(plan, training).run(None)
    status = StudyStatus(plan.tree, training.store)
    assert "twice" in next(iter(status.why_failed().values())).reason
    assert Leases(training.store.folder, "").names() == []


def test_leases_and_files_of_killed_workers_are_cleared_by_a_later_command(
    plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    plan = plan_of(*GRID)
    pid = os.fork()
    if pid == 0:
        Leases(training.store.folder, "gone").register_worker()
        Leases(training.store.folder, "gone").acquire("a path of another study")
        os._exit(9)
    os.waitpid(pid, 0)
    assert len(Leases(training.store.folder, "").names()) == 2
    pool_of(plan, training).run(None)
    assert Leases(training.store.folder, "").names() == []
