"""Which process this is, and whether another one still runs."""

import functools
import hashlib
import os
import platform
import re
from pathlib import Path

_MARK = re.compile(r"(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<born>[0-9]+)")


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
        pass  # no such process, no /proc here, or one that hides the processes of others (hidepid)
    except (OSError, ValueError):
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (OSError, OverflowError):
        pass
    return 0


def process_mark() -> str:
    """A short text that names this process among those of all hosts; part of the names of half-written files."""
    return _mark_of(os.getpid())


@functools.lru_cache(maxsize=2)
def _mark_of(pid: int) -> str:
    return f"{_short(host_name())}-{pid}-{process_birth(pid) or 0}"


def _short(host: str) -> str:
    return hashlib.sha256(host.encode()).hexdigest()[:8]


def still_runs(mark: str) -> bool | None:
    """Whether the process of a mark still runs; None where that cannot be known here: on another host, or no mark."""
    found = _MARK.fullmatch(mark)
    if found is None or found["host"] != _short(host_name()):
        return None
    born = process_birth(int(found["pid"]))
    return born is not None and (born == 0 or found["born"] == "0" or born == int(found["born"]))
