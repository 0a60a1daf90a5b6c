"""Killed anywhere, parent or worker, or run twice at once: the same bits, each step trained once."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ..test_resume import assert_same
from .conftest import inherited, run

KILLS = 20


def family(pid: int) -> list[int]:
    """A process and those that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        below = [int(child) for child in children.read_text().split()]
    except OSError:
        return []
    return [pid, *(member for child in below for member in family(child))]


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_it_ends_in_the_same_bits(grid: list[str], tmp_path: Path, whole: Path) -> None:
    chance = random.Random(0)
    given = [sys.executable, "-m", "tests.end_to_end.launchers.slow", *grid, "hydra/launcher=local", "workers=2"]
    given.append("trainer.save_every_minutes=0.005")
    killed: Counter[str] = Counter()
    while sum(killed.values()) < KILLS:
        command = subprocess.Popen(given, stderr=subprocess.DEVNULL, env=inherited(SLOW_STEPS="0.05"))
        time.sleep(chance.uniform(0.5, 5))
        members = family(command.pid)
        if command.poll() is None and members:
            victim = chance.choice([command.pid, *members[1:]])
            killed["parent" if victim == command.pid else "worker"] += 1
            os.kill(victim, signal.SIGKILL)
            if victim != command.pid:  # the pool goes on without it; the next moment is the parent's
                time.sleep(chance.uniform(0, 1))
                command.kill()
                killed["parent"] += 1
        elif command.poll() is not None:
            killed["after the end"] += 1
        command.wait()
    assert killed["parent"] and killed["worker"]
    assert run([*grid, "hydra/launcher=local", "workers=2"]).returncode == 0
    assert_same(tmp_path / "output", whole)


@pytest.mark.slow
def test_two_commands_at_once_on_one_store_train_each_step_once(grid: list[str], tmp_path: Path, whole: Path) -> None:
    given = [sys.executable, "-m", "replay_sweeps.main", *grid]
    commands = [subprocess.Popen(given, stderr=subprocess.PIPE, env=inherited()) for _ in range(2)]
    assert [command.wait(120) for command in commands] == [0, 0], [c.stderr.read() for c in commands if c.stderr]
    assert_same(tmp_path / "output", whole)
    logs = [file.read_text() for file in (tmp_path / "output" / "logs").iterdir()]
    trained = re.findall(r"path (\S+): steps (\d+) to (\d+)", "".join(logs))
    assert len(trained) == 3 and len({path for path, *_ in trained}) == 3
