"""Killed anywhere, parent or worker, or run twice at once: the same bits, each step trained once."""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replay_sweeps.main import main
from tests.fixtures.outputs import assert_same
from tests.fixtures.processes import inherited, start_forked

pytestmark = pytest.mark.slow

KILLS = 20
STEP = 0.2  # seconds that a step takes longer, so that most moments are in the midst of training


@dataclass(frozen=True)
class Started:
    """A command that runs."""

    pid: int
    is_running: Callable[[], bool]
    wait: Callable[[], object]


def anew(given: list[str]) -> Started:
    """As a user starts it: seconds of imports, so that most moments are before any training."""
    command = subprocess.Popen(
        [sys.executable, "-m", "replay_sweeps.main", *given], stderr=subprocess.DEVNULL, env=inherited()
    )
    return Started(command.pid, lambda: command.poll() is None, command.wait)


def in_training(given: list[str]) -> Started:
    """In a process that has imported everything, whose workers are forked from it and train slowly."""
    command = start_forked(given, before=train_slowly)
    assert command.pid
    return Started(command.pid, command.is_alive, command.join)


def train_slowly() -> None:
    """In the command's process: fork the workers from it, and let their steps take longer."""
    from replay_sweeps.training.lit_module import ReplayModule
    from replay_sweeps.workers import local_launcher

    begin = ReplayModule.begin_step

    def slow(self: ReplayModule, step: int) -> None:
        time.sleep(STEP)
        begin(self, step)

    ReplayModule.begin_step = slow  # type: ignore[method-assign]
    local_launcher.forking_context = lambda: multiprocessing.get_context("fork")  # type: ignore[assignment, return-value]


def family(pid: int) -> Iterator[int]:
    """A process and those that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        below = [int(child) for child in children.read_text().split()]
    except OSError:
        return
    yield pid
    for child in below:
        yield from family(child)


def test_killed_twenty_times_and_resumed_it_ends_in_the_same_bits(grid: list[str], tmp_path: Path, whole: Path) -> None:
    chance = random.Random(0)
    given = [*grid, "hydra/launcher=local", "workers=2"]
    killed: Counter[str] = Counter()
    for start, longest, until in ((anew, 5.0, KILLS // 5), (in_training, 2.5, KILLS)):
        while sum(killed.values()) < until:
            command = start([*given, "trainer.save_every_minutes=0.005"])
            time.sleep(chance.uniform(0.5, longest))
            members = list(family(command.pid))
            if command.is_running() and members:
                victim = chance.choice([command.pid, *members[1:]])
                killed["parent" if victim == command.pid else "worker"] += 1
                os.kill(victim, signal.SIGKILL)
                if victim != command.pid:  # the pool goes on without it; the next moment is the parent's
                    time.sleep(chance.uniform(0, 1))
                    if command.is_running():
                        os.kill(command.pid, signal.SIGKILL)
                    killed["parent"] += 1
            elif not command.is_running():
                killed["after the end"] += 1
            command.wait()
    assert killed["parent"] and killed["worker"]
    assert main(given) == 0
    assert_same(tmp_path / "output", whole)


def test_two_commands_at_once_on_one_store_train_each_step_once(grid: list[str], tmp_path: Path, whole: Path) -> None:
    errors = [tmp_path / "first", tmp_path / "second"]
    commands = [start_forked(grid, err=file) for file in errors]
    for command in commands:
        command.join(120)
    assert [command.exitcode for command in commands] == [0, 0], [file.read_text() for file in errors]
    assert_same(tmp_path / "output", whole)
    logs = [file.read_text() for file in (tmp_path / "output" / "logs").iterdir()]
    trained = re.findall(r"path (\S+): steps (\d+) to (\d+)", "".join(logs))
    assert len(trained) == 3 and len({path for path, *_ in trained}) == 3
