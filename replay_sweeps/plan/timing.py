"""How fast a worker is: the measured seconds of a validation and of a few steps, which the study needs anyway."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import fingerprint, read_record, write_record
from replay_sweeps.machine import machine
from replay_sweeps.plan.memory import hours
from replay_sweeps.schedule.behaviour import first_difference
from replay_sweeps.tree.paths import Segment
from replay_sweeps.tree.planned_run import PlannedRun

STEPS = 3  # the first step also compiles the model; the others give the time of a step
FORWARD = 1 / 3  # the share of a training step's operations that its forward pass takes
Train = Callable[[Segment, Callable[[int], None]], None]  # trains a segment, and calls `on_step` after each step


@dataclass(frozen=True)
class Timing:
    """Seconds of one worker: an optimizer step; validation per token; beginning a path and saving its states."""

    step: float
    validation_token: float
    path: float


def measure(run: PlannedRun, tokens: int, train: Train) -> Timing:
    """Validate the initial state of a run, train its first steps and save the state after them; all of it timed.

    `tokens`: how many the target text's report set has, on which the state is validated.
    """
    validation_sets = {item.metric: item.store for item in run.observations}
    _seconds(train, Segment(run, 0, 0, {}, {0: frozenset({validation_sets["generic_loss"]})}))  # builds, compiles
    validation, _ = _seconds(train, Segment(run, 0, 0, {}, {0: frozenset({validation_sets["target_loss"]})}))
    steps = min(STEPS, run.steps)
    total, done = _seconds(train, Segment(run, 0, steps, {steps: True}, {}))
    save = total - done[-1]
    step = median(after - before for before, after in pairwise([0.0, *done][steps > 1 :]))
    begin = max(0.0, done[0] - step)
    trainer = run.config.trainer
    forward = FORWARD * step / trainer.tokens_per_step  # validation takes no less than this
    # a path saves its last state, and its parent path saved the state that it begins with
    return Timing(step, max(forward, (validation - begin) / tokens), begin + 2 * save)


def _seconds(train: Train, segment: Segment) -> tuple[float, list[float]]:
    """Seconds that training a segment takes, and the seconds from its begin to the end of each step."""
    done: list[float] = []
    began = time.perf_counter()
    train(segment, lambda _: done.append(time.perf_counter() - began))
    return time.perf_counter() - began, done


def measured_run(runs: Sequence[PlannedRun]) -> PlannedRun:
    """The run whose first steps are measured: the longest of those that begin as the first of the grid does."""
    first = runs[0]
    alike = [r for r in runs if r.root == first.root and first_difference(r.behaviour, first.behaviour) > 0]
    return max(alike, key=lambda run: run.steps)


def scaled(timing: Timing, measured: PlannedRun, run: PlannedRun) -> Timing:
    """The timing of another root, by the operations of its steps and the size of its model."""
    if run.root == measured.root:
        return timing
    step = run.flops_per_step / measured.flops_per_step
    token = step * measured.tokens_per_step / run.tokens_per_step
    return Timing(timing.step * step, timing.validation_token * token, timing.path * token)


def estimated(
    run: PlannedRun, tokens_per_second: float | None, rates: Mapping[str, Any] | None
) -> tuple[Timing, str] | None:
    """A timing without measuring, and what it rests on: the rate at which the store trained, or the device's."""
    trainer = run.config.trainer
    if tokens_per_second:
        step, source = run.tokens_per_step / tokens_per_second, "the rate that was measured in this store"
    elif (long := hours(run.flops_per_step, trainer, rates)) is not None:
        step, source = 3600 * long, f"{trainer.utilisation:.0%} of the peak rate"
    else:
        return None
    return Timing(step, FORWARD * step / run.tokens_per_step, 0.0), source


def _timing_file(store: Path, run: PlannedRun, workers: int) -> Path:
    trainer = run.config.trainer
    how = [trainer.threads, trainer.accelerator, trainer.devices, trainer.nodes, trainer.strategy]
    name = fingerprint([run.root, *how, workers, machine()])
    return store / "timings" / f"{name[:16]}.json"


def read_timing(store: Path, run: PlannedRun, workers: int) -> Timing | None:
    """What was measured of a run's root with so many workers on this machine, or None."""
    try:
        record = read_record(_timing_file(store, run, workers))
        return Timing(**{name: record[name] for name in ("step", "validation_token", "path")})
    except (FileNotFoundError, DamagedFile, KeyError):
        return None


def write_timing(store: Path, run: PlannedRun, workers: int, timing: Timing) -> None:
    """Keep what was measured."""
    write_record(_timing_file(store, run, workers), asdict(timing))
