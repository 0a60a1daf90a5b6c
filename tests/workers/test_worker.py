"""Workers over one store: each step trained once, failures kept to what follows them, states dropped when spent."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.errors import CannotGoOn
from replay_sweeps.store import leases
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.status import SKIPPED, StudyStatus
from replay_sweeps.study.study import Study
from replay_sweeps.tree.paths import Segment
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.workers import worker
from replay_sweeps.workers.work_order import PoolSettings
from replay_sweeps.workers.worker import PathWorker, ready_paths
from tests.fixtures.studies import FakeTraining

GRID = ["schedule.replay_fraction=0,0.5,0.75", "schedule.target_fraction=1/128,1/256", "schedule.target_epochs=4"]


def worker_of(plan: StudyPlan, training: FakeTraining, session: str = "a", **pool: object) -> PathWorker:
    status = StudyStatus(plan.tree, training.store)
    return PathWorker(status, Leases(training.store.folder, session), training, pool=PoolSettings(**pool))  # type: ignore[arg-type]


def all_keys(plan: StudyPlan) -> set[str]:
    return {run.key(step) for run in plan.runs for step in range(1, run.steps + 1)}


def test_each_step_of_the_tree_is_trained_once(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    plan = plan_of(*GRID)
    worker = worker_of(plan, training)
    worker.work()
    assert sorted(training.steps) == sorted(all_keys(plan))
    assert not any(worker.status.missing())
    worker_of(plan, training).work()
    assert len(training.steps) == len(all_keys(plan))


def test_workers_at_once_train_each_step_once(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    plan = plan_of(*GRID, "schedule.order_seed=0,1,2,3")
    workers = [worker_of(plan, training, f"session {number % 2}") for number in range(4)]
    while any(workers[0].status.missing()):  # a worker that finds nothing ready ends, as in a round
        threads = [threading.Thread(target=worker.work) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(training.steps) == sorted(all_keys(plan))
    assert workers[0].leases.names() == []


def test_the_longest_chain_comes_first(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    plan = plan_of(*GRID)
    worker_of(plan, training).work()
    lengths = [work.stop - work.start for work in training.works]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) > 2


def test_adding_a_value_trains_only_what_is_new(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    worker_of(plan_of(*GRID), training, keep="all").work()
    before = set(training.steps)
    training.steps.clear()
    plan = plan_of("schedule.replay_fraction=0,0.5,0.75,0.8", *GRID[1:])
    worker_of(plan, training).work()
    assert all_keys(plan) - before <= set(training.steps)
    first = min(work.start for work in training.works[-2:])
    assert first > 0 and before - all_keys(plan) == set()


class Unpicklable(Exception):  # noqa: N818 - what it is
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("bad number"), "ValueError: bad number"),
        (SystemExit(3), "SystemExit: 3"),
        (Unpicklable(), "Unpicklable: holds a lock"),
        (MemoryError("4 GB"), "MemoryError: 4 GB"),
    ],
    ids=["exception", "SystemExit", "unpicklable", "out of memory"],
)
def test_a_failure_costs_only_what_follows_it(
    error: BaseException, reason: str, plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    plan = plan_of(*GRID)
    worker = worker_of(plan, training)
    [trunk] = [index for index, parent in enumerate(worker.tree.parents) if parent is None]
    first, *later = sorted(worker.tree.branches[trunk])

    def fault(work: Segment) -> None:
        if work.run is worker.tree.paths[trunk].run and work.start == first:
            raise error

    training.fault = fault
    worker.work()
    worker.status.refresh()
    failed = worker.status.why_failed()
    alive = {plan.runs[node.run].run_id for i in worker.tree.branches[trunk][first]
             for node in worker.tree.paths[i].nodes}  # fmt: skip
    assert alive and failed.keys() == {run.run_id for run in plan.runs} - alive
    reasons = {failure.reason for failure in failed.values()}
    assert reasons == {reason, SKIPPED + reason} and later
    training.fault = lambda _: None
    worker.status.store.clear_failure(worker.tree.end(trunk))
    worker_of(plan, training).work()
    assert not any(worker.status.missing())


def test_fail_fast_stops_at_the_first(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    plan = plan_of(*GRID, "model.init_seed=0,1")

    def fault(_: Segment) -> None:
        raise ValueError("bad number")

    training.fault = fault
    worker_of(plan, training, fail_fast=True).work()
    assert len(training.works) == 1


def test_a_lost_workers_path_is_taken_up_once_more_before_it_counts_as_failed(
    plan_of: Callable[..., StudyPlan],
    training: FakeTraining,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of("schedule.replay_fraction=0.5")
    log = tmp_path / "worker.log"
    log.write_text("all was well\nthen it was dark\n")
    for lost in [worker_of(plan, training), worker_of(plan, training)]:
        lost.leases.log = log
        monkeypatch.setattr(leases, "process_birth", lambda _: None)  # the worker before is dead
        lease = lost.leases.acquire(lost.tree.lease_name(0))
        assert lease
        lease.stop_heartbeat()
    again = worker_of(plan, training)
    again.work()
    again.status.refresh()
    [failure] = again.status.why_failed().values()
    assert "killed, twice" in failure.reason and failure.log.endswith("then it was dark")
    assert training.steps == [] and again.leases.names() == []
    again.status.store.clear_failure(again.tree.end(0))
    other = worker_of(plan, training, session="the next command")
    other.work()
    assert not any(other.status.missing())


def test_one_lost_worker_costs_a_path_nothing(
    plan_of: Callable[..., StudyPlan], training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of("schedule.replay_fraction=0.5")
    lost = worker_of(plan, training)
    lease = lost.leases.acquire(lost.tree.lease_name(0))
    assert lease
    lease.stop_heartbeat()
    monkeypatch.setattr(leases, "process_birth", lambda _: None)  # that worker is dead
    again = worker_of(plan, training)
    again.work()
    assert not any(again.status.missing()) and again.status.why_failed() == {}


def test_a_worker_ends_where_the_next_round_is_wider(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    plan = plan_of(*GRID)
    first = worker_of(plan, training, workers=4)
    first.work()
    assert len(training.works) == 1
    missing = first.status.missing()
    assert len(ready_paths(first.status, missing)) > 1
    worker_of(plan, training, workers=1).work()
    assert not any(first.status.missing())


@pytest.mark.parametrize("keep", ["leaves", "all", "none"])
def test_states_are_dropped_when_nothing_waits_for_them(
    keep: str, plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    plan = plan_of(*GRID, "trainer.waypoints=2")
    worker = worker_of(plan, training, keep=keep)
    worker.work()
    kept = {state.path for state, _ in training.store.kept_states()}
    tree = worker.tree
    ends = {tree.state(i, node.stop).path for i, path in enumerate(tree.paths) for node in path.nodes if node.runs}
    waypoints = {tree.state(i, step).path for i, path in enumerate(tree.paths) for step in path.waypoints()}
    branches = {tree.state(i, step).path for i, steps in enumerate(tree.branches) for step in steps}
    assert waypoints and branches - waypoints
    assert kept == {"leaves": ends | waypoints, "all": ends | waypoints | branches, "none": set()}[keep]
    assert not any(worker.status.missing())
    for run in plan.runs:
        state = tree.state(0, 1).__class__(run.root, run.steps, run.key(run.steps))
        assert training.store.segment_record(state) and training.store.observation(state, run.observations[0].store)


def test_a_full_disk_is_one_line_and_loses_nothing(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    plan = plan_of(*GRID)
    worker = worker_of(plan, training)

    def fault(_: Segment) -> None:
        raise OSError(28, "No space left on device", "/store/x")

    training.fault = fault
    with pytest.raises(CannotGoOn, match=r"the disk is full \(/store/x\): nothing that was finished is lost") as raised:
        worker.work()
    assert len(raised.value.problems) == 1 and "\n" not in raised.value.problems[0]
    assert worker.leases.names() == [] and worker.status.why_failed() == {}
    trained = len(training.steps)
    training.fault = lambda _: None
    worker_of(plan, training).work()
    assert not any(worker.status.missing()) and trained


def test_a_damaged_state_is_trained_again(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> None:
    from replay_sweeps.errors import DamagedFile

    plan = plan_of(*GRID)
    damaged: list[int] = []
    worker = worker_of(plan, training)

    def open_parent(work: Segment, lease: leases.Lease) -> None:
        if work.start and not damaged:
            damaged.append(work.start)
            training.store.drop_state(work.state(work.start))
            raise DamagedFile("a bit flipped")
        training(work, lease)

    worker.train = open_parent
    worker.work()
    assert damaged and not any(worker.status.missing()) and worker.status.why_failed() == {}


def test_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(map(str, range(100))))
    assert worker.last_lines(log).splitlines() == [str(line) for line in range(80, 100)]
    assert worker.last_lines(tmp_path / "none") == worker.last_lines(None) == ""


def test_in_process_there_is_one_worker_whatever_is_asked_for(study_of: Callable[..., Study]) -> None:
    assert study_of("workers=4").workers == 1
    assert study_of("workers=4", "hydra/launcher=local").workers == 4
