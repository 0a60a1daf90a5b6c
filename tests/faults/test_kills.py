"""Commands on one store, one of which is killed at its n-th write: the same command finishes with the same bits."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from replay_sweeps.main import main
from replay_sweeps.store import leases
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.leftovers import clear_half_written
from replay_sweeps.store.states import Store
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.tree.state_name import StateName
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.workers.pool import WorkerPool
from replay_sweeps.workers.work_order import PoolSettings
from replay_sweeps.workers.worker import PathWorker
from tests.faults.world import World, without_times
from tests.fixtures.processes import run_forked, signal_at
from tests.fixtures.studies import FakeTraining

pytestmark = pytest.mark.slow

GRID = ["schedule.replay_fraction=0,0.5,0.75", "schedule.target_epochs=4", "trainer.waypoints=2"]
WRITES = ("fsync", "rename", "replace", "unlink", "rmdir")
GRACE = 0.3  # seconds, in place of a minute


def work(plan: StudyPlan, store: Path, session: str, keep: str) -> None:
    """What a worker does until nothing is ready."""
    training = FakeTraining(Store(store))
    status = StudyStatus(plan.tree, training.store)
    pool = PoolSettings(keep=keep)  # type: ignore[arg-type]
    PathWorker(status, Leases(store, session, None, GRACE / 6, GRACE), training, pool=pool).work()


def start_worker(plan: StudyPlan, store: Path, host: str, keep: str, killed_at: int | None) -> int:
    """Start a command's worker in a process of its own, on a host of this name; `killed_at`: at its n-th write."""
    pid = os.fork()
    if pid:
        return pid
    try:
        leases.host_name = lambda: host
        left = [killed_at or -1]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def made(*given: Any, **named: Any) -> Any:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*given, **named)

            return made

        for name in WRITES:
            setattr(os, name, counted(getattr(os, name)))
        work(plan, store, f"the command of {host}", keep)
        os._exit(0)
    except BaseException:
        os._exit(3)


def finish(plan: StudyPlan, store: Path, keep: str) -> None:
    """The same command again: rounds of one worker until nothing is left."""
    clear_half_written(Store(store))
    status = StudyStatus(plan.tree, Store(store))
    observer = Leases(store, "again", None, GRACE / 6, GRACE)

    def launch(_: int) -> list[SimpleNamespace]:
        work(plan, store, "again", keep)
        return [SimpleNamespace(return_value=None)]

    WorkerPool(status, observer, PoolSettings(keep=keep), launch).run(None)  # type: ignore[arg-type]


def bits(store: Path, kinds: tuple[str, ...] = ("states", "observations")) -> dict[str, bytes]:
    """The files of a store that are the same however it came about, and their content."""
    files = (file for kind in kinds for file in (store / kind).rglob("*") if file.is_file())
    return {file.relative_to(store).as_posix(): file.read_bytes() for file in files}


def runs_without_weights(plan: StudyPlan, store: Path) -> list[str]:
    """The runs that count as done and whose weights are not there."""
    status = StudyStatus(plan.tree, Store(store))
    ends = [plan.tree.runs[run] for run in status.done(status.missing())]
    return [
        run.run_id for run in ends if not Store(store).has_weights(StateName(run.root, run.steps, run.key(run.steps)))
    ]


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay_sweeps.workers.pool.LOOK_EVERY", 0.05)


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("keep", ["leaves", "all"])
@pytest.mark.parametrize("hosts", [["one"], ["one", "two"]], ids=["one command", "two commands on two hosts"])
def test_a_command_that_is_killed_at_any_write_is_finished_by_the_next(
    hosts: list[str], keep: str, plan_of: Callable[..., StudyPlan], tmp_path: Path
) -> None:
    plan = plan_of(*GRID)
    work(plan, tmp_path / "whole", "a", keep)
    whole = bits(tmp_path / "whole")
    assert runs_without_weights(plan, tmp_path / "whole") == []
    killed = 0
    for write in (1, 4, 9, 17, 26, 41, 63, 90, 120):
        store = tmp_path / str(write)
        numbers = [write, None]
        started = [start_worker(plan, store, host, keep, at) for host, at in zip(hosts, numbers, strict=False)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]
        assert set(codes) <= {0, -signal.SIGKILL}, codes
        killed += -signal.SIGKILL in codes
        assert runs_without_weights(plan, store) == [], f"killed at write {write}"
        finish(plan, store, keep)
        assert bits(store) == whole, f"killed at write {write}"
        collector = Leases(store, "", None, GRACE / 6, GRACE)
        assert not collector.any_alive()  # a worker of another host is watched for a while, as gc does
        collector.clear_stale(session_over=True)
        assert collector.names() == [] and list(store.rglob(".*.tmp")) == []
    assert killed >= 4


@pytest.mark.slow
@pytest.mark.parametrize(("call", "count"), [("os:fsync", 30), ("os:replace", 22), ("os:rename", 9)])
def test_a_study_that_is_killed_while_it_really_trains_is_finished_with_the_same_bits(
    call: str, count: int, world: World, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    command = [item for item in world.command() if not item.startswith(("paths.output=", "budget="))]
    command.append(f"paths.output={output}")
    stopped = run_forked(command, before=partial(signal_at, call, count, signal.SIGKILL))
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert main(command) == 0
    healthy = world.healthy / "output"
    assert without_times(output / "runs.csv") == without_times(healthy / "runs.csv")
    known = bits(healthy / "store", ("states", "observations", "text/tokens"))
    found = bits(output / "store", ("states", "observations", "text/tokens"))
    assert {name: known[name] for name in found if not name.endswith("state.json")} == {
        name: content for name, content in found.items() if not name.endswith("state.json")
    }
