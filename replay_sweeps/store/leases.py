"""Leases: which worker trains which path. A lease is a file of the store that its owner keeps alive by a heartbeat.

A worker acquires a lease by creating its file, which succeeds for one worker alone. Every few seconds the owner
rewrites the first line of the file: the heartbeat. Once a lease is stale, another worker may remove it and acquire its
own. A lease is stale when its owner is known to be gone, or when its heartbeat has not changed for a grace period.

Workers on several hosts share a store, and the clocks of hosts and file servers may differ by hours. So no one compares
a time in a file with a clock. Each observer remembers by its own clock since when it has seen the same heartbeat.

Two workers may, rarely, train the same path, say when a host was only slow. That does no harm: the states have the same
names and the same bits. So a lease need not be a perfect lock.
"""

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replay_sweeps.errors import CannotGoOn, DamagedFile
from replay_sweeps.files import is_real_folder, put_aside, read_bounded, remove, temporary_name, usable_folder
from replay_sweeps.processes import host_name, process_birth

HEARTBEAT_INTERVAL = 5.0  # seconds between heartbeats
GRACE_PERIOD = 60.0  # seconds without a heartbeat after which a lease is stale
WORKER_PREFIX = "worker-"  # begins the names of leases by which workers say that they are alive; they name no path
HEARTBEAT_BYTES = 26  # length of the heartbeat, the first line of the file
MOST_BYTES = 2**16  # of a lease's file
LOST = "lost"  # in place of the owner's host: an observer that watched long enough has found the worker gone


@dataclass(frozen=True)
class LeaseOwner:
    """The worker that holds a lease."""

    owner: str  # a name that no other acquired lease has
    session: str  # the command that the worker belongs to
    host: str
    pid: int
    born: int  # when the process started: a pid alone may be given to another process later
    lost_workers: int  # workers of the same session that held this lease before and are gone
    log: str  # the worker's log file

    @classmethod
    def from_json(cls, text: bytes) -> "LeaseOwner":
        """Raises ValueError or TypeError where a file was half written."""
        record = dict(json.loads(text))
        owner = cls(**{"lost_workers" if name == "lost" else name: value for name, value in record.items()})
        texts = (owner.owner, owner.session, owner.host, owner.log)
        numbers = (owner.pid, owner.born, owner.lost_workers)
        if not (all(isinstance(value, str) for value in texts) and all(isinstance(value, int) for value in numbers)):
            raise TypeError("not an owner")
        return owner

    def to_json(self) -> bytes:
        record = {"lost" if name == "lost_workers" else name: value for name, value in vars(self).items()}
        return json.dumps(record).encode()

    def is_gone(self) -> bool:
        """Whether the owner's process is known to have ended; False where it runs on another host."""
        if self.host == LOST:
            return True
        if self.host != host_name():
            return False
        born = process_birth(self.pid)
        return born is None or bool(born and self.born and born != self.born)

    def is_alive(self) -> bool:
        """Whether the owner's process is known to run; False where it runs on another host."""
        return self.host == host_name() and not self.is_gone()


class Lease:
    """A lease that this worker holds; a thread writes its heartbeat until it is released."""

    def __init__(
        self, file: Path, handle: int, owner: LeaseOwner, previous_owner: LeaseOwner | None, interval: float
    ) -> None:
        self.file, self.owner = file, owner
        self.previous_owner = previous_owner  # a worker of the same session that is gone
        self.step = 0  # the step that training is at; the heartbeat shows it to observers
        self._handle, self._beats = handle, 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(interval,), daemon=True, name="heartbeat")
        self._thread.start()

    def _beat(self, interval: float) -> None:
        while not self._stopped.wait(interval):
            self._beats += 1
            with suppress(OSError):  # a full disk or a server that hangs must not end training
                os.pwrite(self._handle, heartbeat(self._beats, self.step), 0)

    def stop_heartbeat(self) -> None:
        """Stop the heartbeat and leave the file, as a worker does that is lost: the lease becomes stale."""
        self._stopped.set()
        self._thread.join()

    def release(self) -> None:
        """Let others acquire the lease."""
        self.stop_heartbeat()
        os.close(self._handle)
        found = read_lease(self.file)
        if found is None or found[1] == self.owner:  # else it became stale, and the file is another worker's
            self.file.unlink(missing_ok=True)


def heartbeat(beats: int, step: int) -> bytes:
    """The first line of a lease's file: how often the owner has written it, and the step that training is at."""
    return f"{beats:012d} {step:012d}\n".encode()


def read_lease(file: Path) -> tuple[bytes, LeaseOwner | None] | None:
    """The heartbeat of a lease and its owner (None: half written, or no lease at all), or None if there is no file."""
    try:
        content = read_bounded(file, MOST_BYTES)
    except (DamagedFile, CannotGoOn):  # something else in its place, or a lease that only its owner may read
        return _time_of_change(file), None
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    try:
        return content[:HEARTBEAT_BYTES], LeaseOwner.from_json(content[HEARTBEAT_BYTES:])
    except (ValueError, TypeError, RecursionError):
        return content, None


def _time_of_change(file: Path) -> bytes:
    """Stands for a heartbeat that cannot be read: it changes when the file does. It is never compared with a clock."""
    try:
        return str(file.lstat().st_mtime_ns).encode()
    except OSError:
        return b""


def _step_of(beat: bytes) -> int:
    """The step in a heartbeat; 0 where it is damaged."""
    try:
        return int(beat.split()[1])
    except (IndexError, ValueError):
        return 0


def _nothing() -> None:
    pass


class Leases:
    """The leases of a store, as one worker or observer sees and acquires them."""

    def __init__(
        self,
        store: Path,
        session: str,
        log: Path | None = None,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
        grace_period: float = GRACE_PERIOD,
    ) -> None:
        self.folder = store / "claims"
        self.session, self.log = session, log
        self.heartbeat_interval, self.grace_period = heartbeat_interval, grace_period
        self._last_seen: dict[str, tuple[Any, float]] = {}  # by name: the lease as last read, and since when it is so

    def names(self) -> list[str]:
        """The names of all leases, stale ones too."""
        try:
            with os.scandir(usable_folder(self.folder)) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []

    def held(self) -> dict[str, int]:
        """The paths that living workers hold, with the step that each is at."""
        return {name: step for name, (step, _) in self._alive().items() if not name.startswith(WORKER_PREFIX)}

    def workers(self) -> int:
        """How many workers of this session are alive."""
        alive = self._alive().items()
        return sum(name.startswith(WORKER_PREFIX) and session == self.session for name, (_, session) in alive)

    def register_worker(self) -> Lease:
        """Say that this worker is alive, also between two paths, until the lease is released."""
        lease = self.acquire(f"{WORKER_PREFIX}{uuid.uuid4().hex}")
        assert lease
        return lease

    def acquire(self, name: str) -> Lease | None:
        """The lease of this name, or None while another worker holds it."""
        gone: LeaseOwner | None = None
        found = read_lease(self._lease_file(name))
        if found is not None:
            beat, owner = found
            if not self.is_stale(name, beat, owner) or not self._remove_stale(name, owner):
                return None
            gone = owner if owner and owner.session == self.session else None
        return self._create(name, gone)

    def is_stale(self, name: str, beat: bytes, owner: LeaseOwner | None) -> bool:
        """Whether the owner of a lease is gone or silent, given the heartbeat and the owner just read from its file."""
        now = time.monotonic()
        before, since = self._last_seen.get(name, (None, now))
        if before != (beat, owner):
            since = now
        self._last_seen[name] = ((beat, owner), since)
        return (owner is not None and owner.is_gone()) or now - since > self.grace_period

    def _alive(self) -> dict[str, tuple[int, str]]:
        """The step and the session of each lease that is not stale, by name."""
        alive = {}
        names = self.names()
        for released in self._last_seen.keys() - set(names):
            self._last_seen.pop(released, None)
        for name in names:
            found = read_lease(self._lease_file(name))
            if found is not None and not self.is_stale(name, *found):
                beat, owner = found
                alive[name] = (_step_of(beat), owner.session) if owner else (0, "")
        return alive

    def any_alive(self, on_wait: Callable[[], None] = lambda: None) -> bool:
        """Whether a worker lives. The leases of other hosts are watched, at most for the grace period.

        `on_wait` is called once, before the first wait.
        """
        first: dict[str, Any] = {}
        while alive := self._alive():
            for name in alive:
                seen, _ = self._last_seen[name]
                _, owner = seen
                if (owner and owner.is_alive()) or first.setdefault(name, seen) != seen:
                    return True
            on_wait()
            on_wait = _nothing
            time.sleep(min(0.5, self.grace_period / 10))
        return False

    def clear_stale(self, session_over: bool = False) -> None:
        """Make what this observer has judged true for all: workers that start now have not watched yet.

        A stale lease is removed. One of a path of the same session stays and is marked as lost, until the session is
        over, so that the next worker knows how many workers the path has cost.
        """
        for name in self.names():
            found = read_lease(self._lease_file(name))
            if found is None or not self.is_stale(name, *found):
                continue
            owner = found[1]
            if owner is None and self.folder.is_symlink():
                continue  # the folder is the user's, on another disk: what is no lease may be a file of theirs
            stays = owner and owner.session == self.session and not name.startswith(WORKER_PREFIX) and not session_over
            if stays and owner and owner.host == LOST:
                continue
            if self._remove_stale(name, owner) and stays and owner:
                self._leave_as_lost(name, owner)

    def _leave_as_lost(self, name: str, owner: LeaseOwner) -> None:
        with suppress(FileExistsError):  # another worker was quicker
            handle = os.open(self._lease_file(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                os.write(handle, heartbeat(0, 0) + replace(owner, host=LOST).to_json())
            finally:
                os.close(handle)

    def _create(self, name: str, previous_owner: LeaseOwner | None) -> Lease | None:
        """A new lease, or None where another worker was quicker."""
        pid = os.getpid()
        owner = LeaseOwner(
            owner=uuid.uuid4().hex,
            session=self.session,
            host=host_name(),
            pid=pid,
            born=process_birth(pid) or 0,
            lost_workers=previous_owner.lost_workers + 1 if previous_owner else 0,
            log=str(self.log or ""),
        )
        file = self._lease_file(name)
        usable_folder(self.folder).mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        try:
            os.write(handle, heartbeat(0, 0) + owner.to_json())
        except OSError:
            os.close(handle)
            file.unlink(missing_ok=True)
            raise
        return Lease(file, handle, owner, previous_owner, self.heartbeat_interval)

    def _remove_stale(self, name: str, judged: LeaseOwner | None) -> bool:
        """Remove the stale lease of the owner that was judged; False where another worker was quicker."""
        aside = temporary_name(self._lease_file(name))
        try:
            self._lease_file(name).rename(aside)
        except FileNotFoundError:
            return False
        found = read_lease(aside)
        is_the_judged_one = found is not None and found[1] == judged
        if not is_the_judged_one:  # the quicker worker has a lease of its own by now, and it is this one: put it back
            with suppress(OSError):
                os.link(aside, self._lease_file(name))
        if is_real_folder(aside):
            put_aside(aside)
        else:
            remove(aside)
        return is_the_judged_one

    def _lease_file(self, name: str) -> Path:
        return self.folder / name
