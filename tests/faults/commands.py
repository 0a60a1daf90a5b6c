"""The commands under test, each run in this process, with a limit on its time."""

import io
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from analysis.main import main as analyze
from replay_sweeps import main as entry
from replay_sweeps.store.command import main as store_command
from replay_sweeps.store.leases import Leases
from tests.faults.world import World

LIMIT = float(os.environ.get("REPLAY_SWEEPS_FAULT_LIMIT", 20))  # seconds after which a command hangs
HANGS = "hangs"
GRACE = 0.3  # seconds without a heartbeat after which a lease is stale, in place of a minute


class Hangs(BaseException):
    """A command that did not end in time."""


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    code: int | None  # None: it did not end as a command should
    out: str
    err: str
    problem: str | None  # a traceback, or that it hangs

    def problems(self) -> Iterator[str]:
        """What no command may do, whatever it finds."""
        if self.problem:
            yield self.problem
        elif "Traceback" in self.err:
            yield "a traceback on stderr"
        elif self.code not in (0, 1, 2):
            yield f"exit code {self.code}"
        elif self.code and not self.err.strip():
            yield f"exit code {self.code} without a line on stderr"
        if any(len(line) > 2000 for line in self.err.splitlines()):
            yield "a line of more than 2,000 characters on stderr"


def outcome_of(command: Callable[[], int | None]) -> Outcome:
    """Run a command and see how it ends."""
    out, err = io.StringIO(), io.StringIO()
    code, problem = None, None
    try:
        with redirect_stdout(out), redirect_stderr(err), _limited():
            code = command() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except Hangs:
        problem = HANGS
    except Exception as error:
        problem = "traceback: " + _where(error)
    return Outcome(code, out.getvalue(), err.getvalue(), problem)


def _where(error: Exception) -> str:
    """An error in a line, and the last lines of this project that it came through."""
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if re.search(r"/(replay_sweeps|analysis)/", frame.filename)
    ]
    return f"{type(error).__name__}: {str(error)[:150]} ({' > '.join(frames[-3:])})"


@contextmanager
def _limited() -> Iterator[None]:
    def hangs(_: int, __: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Commands:
    """The commands on a world, by name. What is slow and reads no file of the store is left out or done once."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        from analysis.report import report
        from replay_sweeps.models import numerics
        from replay_sweeps.study import command, study
        from replay_sweeps.workers import pool

        self.world = world
        self._arguments: dict[str, tuple[Any, Any]] = {}  # composed commands
        patch.setattr(entry, "_run", _run)
        patch.setattr(entry, "read_command", lambda given, loader: (given, loader))
        patch.setattr(entry, "resolve_study", self._resolved)
        patch.setattr(report, "draw_all", lambda evidence: ([], []))
        rates = numerics.known_rates(world.store) or {}
        measured = {name: rates[name] for name in ("device", "fp32_flops", "bf16_flops")}
        patch.setattr(numerics, "_measure_rates", lambda: measured)
        patch.setattr("replay_sweeps.data.prepare.processors", lambda: 1)
        patch.setattr(pool, "LOOK_EVERY", 0.05)
        log, *_ = Leases.__init__.__defaults__ or ()
        patch.setattr(Leases.__init__, "__defaults__", (log, GRACE / 6, GRACE))
        self._read, self._resolve = command.read_command, study.resolve_study
        self._run_id = world.run_id()

    def _resolved(self, command: tuple[Sequence[str], Any], _: object) -> Any:
        given, loader = command
        name = " ".join(given)
        if name not in self._arguments:
            self._arguments[name] = self._resolve(self._read(given, loader), loader)
        return self._arguments[name]

    def run(self, name: str) -> Outcome:
        """Run the command of this name."""
        store, aside = ["--store", str(self.world.store)], self.world.folder / "aside"
        commands: dict[str, Callable[[], int | None]] = {
            "resume": lambda: entry.main(self.world.command()),
            "plan": lambda: entry.main([*self.world.command(), "plan=json"]),
            "list": lambda: store_command(["list", *store]),
            "gc": lambda: store_command(["gc", *store]),
            "export": lambda: store_command(["export", self._run_id, str(aside / "model"), *store]),
            "analyze": lambda: analyze(
                [str(self.world.output), "--replicates", "100", "--out", str(aside / "analysis")]
            ),
        }
        return outcome_of(commands[name])


COMMANDS = ("list", "plan", "gc", "export", "analyze", "resume")


def _run(_: object, study: Any) -> None:
    """As the sweeper with Hydra's basic launcher: the one worker is this process."""
    from replay_sweeps.workers.run_study import run_study
    from replay_sweeps.workers.worker_process import work

    run_study(study, lambda file, workers: [SimpleNamespace(return_value=work(file))])
