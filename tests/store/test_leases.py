"""One worker holds the lease of a path; a lease whose owner is gone is stale; no two clocks are ever compared."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replay_sweeps.store import leases
from replay_sweeps.store.leases import Leases

ACQUIRE = """
import sys, time
from pathlib import Path
from replay_sweeps.store.leases import Leases
assert Leases(Path(sys.argv[1]), sys.argv[2]).acquire("path")
if sys.argv[3] == "exit":
    import os
    os._exit(0)
print("acquired", flush=True)
time.sleep(60)
"""


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is on another host."""
    monkeypatch.setattr(leases, "host_name", lambda: "another host")


def test_a_path_is_held_by_one_worker_until_it_is_released(tmp_path: Path) -> None:
    one, other = Leases(tmp_path, "a"), Leases(tmp_path, "b")
    lease = one.acquire("path")
    assert lease and other.acquire("path") is None
    assert list(other.held()) == ["path"]
    lease.release()
    assert other.held() == {}
    again = other.acquire("path")
    assert again and again.owner.lost_workers == 0
    again.release()


@pytest.mark.parametrize(("session", "lost"), [("same", 1), ("another", 0)])
def test_the_lease_of_a_process_that_has_ended_is_free_at_once(tmp_path: Path, session: str, lost: int) -> None:
    subprocess.run([sys.executable, "-c", ACQUIRE, str(tmp_path), "same", "exit"], check=True)
    observer = Leases(tmp_path, session)
    assert observer.held() == {}
    lease = observer.acquire("path")
    assert lease and lease.owner.lost_workers == lost
    lease.release()


def test_the_lease_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", ACQUIRE, str(tmp_path), "same", "stay"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        observer = Leases(tmp_path, "same")
        assert observer.acquire("path") is None
        process.kill()
        process.wait()
        lease = observer.acquire("path")
    assert lease and lease.owner.lost_workers == 1
    lease.release()


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_an_hour_apart_neither_free_a_living_lease_nor_keep_a_stale_one(
    tmp_path: Path, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Leases(tmp_path, "a", heartbeat_interval=0.05).acquire("path")
    assert lease
    elsewhere(monkeypatch)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)
    os.utime(lease.file, (now() - 3600 * hours,) * 2)
    observer = Leases(tmp_path, "b", grace_period=0.4)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert observer.acquire("path") is None
        time.sleep(0.05)
    lease.stop_heartbeat()  # as when a host is lost
    assert observer.acquire("path") is None
    time.sleep(0.5)
    mine = observer.acquire("path")
    assert mine
    lease.release()  # the host was only slow: it leaves the lease to its new owner
    assert list(observer.held()) == ["path"]
    mine.release()


def test_a_worker_of_another_host_may_be_silent_for_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Leases(tmp_path, "a", heartbeat_interval=3600).acquire("path")
    assert lease
    elsewhere(monkeypatch)
    seconds = 1000.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: seconds)
    observer = Leases(tmp_path, "b")
    assert list(observer.held()) == ["path"]
    seconds += 59
    assert list(observer.held()) == ["path"]
    seconds += 2
    assert observer.held() == {}
    monkeypatch.undo()
    lease.release()


@pytest.mark.parametrize(("later", "is_gone"), [(0, False), (1, True)])
def test_a_process_id_that_was_given_again_is_another_process(later: int, is_gone: bool) -> None:
    born = leases.process_birth(os.getpid())
    assert born is not None
    if not born:
        pytest.skip("this system does not tell when a process started")
    owner = leases.LeaseOwner("name", "session", leases.host_name(), os.getpid(), born + later, 0, "")
    assert owner.is_gone() == is_gone


def test_a_lease_that_was_half_written_is_free_after_the_grace_period(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "path").write_bytes(b"0000")
    observer = Leases(tmp_path, "a", grace_period=0.1)
    assert observer.acquire("path") is None
    time.sleep(0.2)
    lease = observer.acquire("path")
    assert lease
    lease.release()


def test_of_two_workers_that_find_a_stale_lease_one_acquires_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ACQUIRE, str(tmp_path), "same", "exit"], check=True)
    slow, quick = Leases(tmp_path, "same"), Leases(tmp_path, "same")
    found = leases.read_lease(tmp_path / "claims" / "path")
    assert found
    lease = quick.acquire("path")
    assert lease
    assert not slow._remove_stale("path", found[1])  # it judged the lease before the other acquired its own
    assert slow.acquire("path") is None and list(slow.held()) == ["path"]
    lease.release()


def test_the_step_that_a_worker_is_at_is_seen(tmp_path: Path) -> None:
    lease = Leases(tmp_path, "a", heartbeat_interval=0.02).acquire("path")
    assert lease
    lease.step = 17
    time.sleep(0.2)
    assert Leases(tmp_path, "b").held() == {"path": 17}
    lease.release()
