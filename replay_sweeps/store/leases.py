"""Claims: which worker trains which path, as files made by exclusive create and kept alive by a heartbeat.

Ages are never judged by comparing clocks: an observer watches, by its own clock, whether a claim's heartbeat changes.
A path trained twice by accident is harmless (same key, same bits), so a claim need not be a perfect lock.
"""

import errno
import json
import os
import platform
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HEARTBEAT_INTERVAL = 5.0  # seconds between heartbeats
GRACE_PERIOD = 60.0  # seconds without a heartbeat after which a claim is free again
WORKER = "worker-"  # what the claims of workers themselves, not of paths, are called
HEAD = 26  # bytes of the line that the heartbeat rewrites in place: beats and step


def host_name() -> str:
    """The name of what process ids are unique in: this boot of this machine, and the namespace of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def process_birth(pid: int) -> int | None:
    """When a process started (clock ticks since boot; 0 where that is unknown), None if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, ValueError):
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


@dataclass(frozen=True)
class LeaseOwner:
    """Who holds a claim."""

    owner: str  # one name for each claim taken
    session: str  # the command that the worker belongs to
    host: str
    pid: int
    born: int
    lost: int  # how many workers of the same session were lost on this path before
    log: str  # the worker's log file

    def is_dead(self) -> bool:
        """Whether the holder's process is known to be gone; False where it runs elsewhere."""
        if self.host != host_name():
            return False
        born = process_birth(self.pid)
        return born is None or bool(born and self.born and born != self.born)


class Lease:
    """A path that this worker holds: a thread tells others so until it is released."""

    def __init__(self, file: Path, handle: int, holder: LeaseOwner, lost: LeaseOwner | None, beat: float) -> None:
        self.file, self.holder, self.lost_owner = file, holder, lost
        self.step = 0  # shown to observers
        self._handle, self._beats = handle, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, args=(beat,), daemon=True, name="heartbeat")
        self._thread.start()

    def _live(self, beat: float) -> None:
        while not self._over.wait(beat):
            self._beats += 1
            with suppress(OSError):  # a full disk or a server that hangs must not end training
                os.pwrite(self._handle, head(self._beats, self.step), 0)

    def release(self) -> None:
        """Let others take the path."""
        self._over.set()
        self._thread.join()
        os.close(self._handle)
        found = read_lease(self.file)
        if found is None or found[1] == self.holder:  # it was not taken from us meanwhile
            self.file.unlink(missing_ok=True)


def head(beats: int, step: int) -> bytes:
    """The line of a claim that changes."""
    return f"{beats:012d} {step:012d}\n".encode()


def read_lease(file: Path) -> tuple[bytes, LeaseOwner | None] | None:
    """The changing line of a claim and its holder (None: half written), or None if there is no claim."""
    try:
        content = file.read_bytes()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    try:
        return content[:HEAD], LeaseOwner(**json.loads(content[HEAD:]))
    except (ValueError, TypeError):
        return content, None


class Leases:
    """The claims of a store, as one worker or observer sees and makes them."""

    def __init__(
        self,
        store: Path,
        session: str,
        log: Path | None = None,
        heartbeat: float = HEARTBEAT_INTERVAL,
        grace_period: float = GRACE_PERIOD,
    ) -> None:
        self.folder = store / "claims"
        self.session, self.log, self.heartbeat, self.grace_period = session, log, heartbeat, grace_period
        self._watched: dict[str, tuple[Any, float]] = {}  # what a claim looked like, and since when

    def _file(self, name: str) -> Path:
        return self.folder / name

    def names(self) -> list[str]:
        """The names of all claims, those of dead workers too."""
        try:
            return [entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []

    def register_worker(self) -> Lease:
        """Say that this worker is alive, also between two paths, until it is released."""
        lease = self.take(f"{WORKER}{uuid.uuid4().hex}")
        assert lease
        return lease

    def held(self) -> dict[str, int]:
        """The paths that living workers hold, with the step that each is at."""
        return {name: step for name, (step, _) in self._alive().items() if not name.startswith(WORKER)}

    def workers(self) -> int:
        """How many workers of this session are alive."""
        found = self._alive().items()
        return sum(name.startswith(WORKER) and session == self.session for name, (_, session) in found)

    def _alive(self) -> dict[str, tuple[int, str]]:
        """The step and the session of each claim of a living worker."""
        found = {}
        names = self.names()
        for gone in self._watched.keys() - set(names):
            del self._watched[gone]
        for name in names:
            lease = read_lease(self._file(name))
            if lease is not None and not self._is_dead(name, *lease):
                line, holder = lease
                found[name] = (int(line.split()[1]), holder.session) if holder else (0, "")
        return found

    def take(self, name: str) -> Lease | None:
        """The claim called `name`, or None while another worker holds it."""
        lost = None
        lease = read_lease(self._file(name))
        if lease is not None:
            if not self._is_dead(name, *lease) or not self._remove(name, lease[1]):
                return None
            lost = lease[1]
        same = lost is not None and lost.session == self.session
        pid = os.getpid()
        holder = LeaseOwner(
            owner=uuid.uuid4().hex,
            session=self.session,
            host=host_name(),
            pid=pid,
            born=process_birth(pid) or 0,
            lost=lost.lost + 1 if lost and same else 0,
            log=str(self.log or ""),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(self._file(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        try:
            os.write(handle, head(0, 0) + json.dumps(asdict(holder)).encode())
        except OSError:
            os.close(handle)
            self._file(name).unlink(missing_ok=True)
            raise
        return Lease(self._file(name), handle, holder, lost if same else None, self.heartbeat)

    def _is_dead(self, name: str, line: bytes, holder: LeaseOwner | None) -> bool:
        seen = (line, holder)
        now = time.monotonic()
        before, since = self._watched.get(name, (None, now))
        if before != seen:
            since = now
        self._watched[name] = (seen, since)
        return (holder is not None and holder.is_dead()) or now - since > self.grace_period

    def _remove(self, name: str, judged: LeaseOwner | None) -> bool:
        """Remove a dead worker's claim; False where another observer was quicker."""
        aside = self.folder / f".{name}.{uuid.uuid4().hex}"
        try:
            self._file(name).rename(aside)
        except FileNotFoundError:
            return False
        found = read_lease(aside)
        mine = found is not None and found[1] == judged
        if not mine:  # it is the claim of one who removed the dead one first: put it back
            with suppress(OSError):
                os.link(aside, self._file(name))
        aside.unlink(missing_ok=True)
        return mine
