"""How fast a worker is: a validation and a few steps that the study needs anyway, on the clock."""

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

STEPS = 3  # the first waits for a compiler; the others tell the time of one
FORWARD = 1 / 3  # of the operations of a training step


@dataclass(frozen=True)
class Timing:
    """Seconds of one worker: an optimizer step; validation per token; beginning a path and saving its states."""

    step: float
    validation_token: float
    path: float


class _Clock:
    """In a claim's place: notes when each step was done."""

    def __init__(self) -> None:
        self.done: list[float] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "step":
            self.done.append(time.perf_counter())
        else:
            super().__setattr__(name, value)


def measure(run: PlannedRun, tokens: int, train: Callable[[Segment, Any], None]) -> Timing:
    """Train the first steps of a run, their last state being kept, and validate the state that they begin with.

    `tokens`, of a validation store of the target text.
    """
    names = {item.metric: item.store for item in run.observations}
    train(Segment(run, 0, 0, {}, {0: frozenset({names["generic_loss"]})}), _Clock())  # builds and compiles the model
    began = time.perf_counter()
    train(Segment(run, 0, 0, {}, {0: frozenset({names["target_loss"]})}), _Clock())
    validated = time.perf_counter() - began
    clock, steps = _Clock(), min(STEPS, run.steps)
    began = time.perf_counter()
    train(Segment(run, 0, steps, {steps: True}, {}), clock)
    saved = time.perf_counter() - clock.done[-1]
    step = median(after - before for before, after in pairwise([began, *clock.done][steps > 1 :]))
    begin = max(0.0, clock.done[0] - began - step)
    trainer = run.config.trainer
    least = FORWARD * step / trainer.tokens_per_step
    # a path saves a state where it ends, and its parent saved the one that it begins with
    return Timing(step, max(least, (validated - begin) / tokens), begin + 2 * saved)


def measured_run(runs: Sequence[PlannedRun]) -> PlannedRun:
    """The run whose first steps are measured: the longest of those that begin as the first of the grid does."""
    first = runs[0]
    alike = [r for r in runs if r.root == first.root and first_difference(r.behaviour, first.behaviour) > 0]
    return max(alike, key=lambda run: run.steps)


def scaled(timing: Timing, measured: PlannedRun, run: PlannedRun) -> Timing:
    """The timing of another root, by the operations of its steps and the size of its model."""
    if run.root == measured.root:
        return timing
    step = run.step_flops / measured.step_flops
    token = step * measured.step_tokens / run.step_tokens
    return Timing(timing.step * step, timing.validation_token * token, timing.path * token)


def estimated(
    run: PlannedRun, tokens_per_second: float | None, rates: Mapping[str, Any] | None
) -> tuple[Timing, str] | None:
    """A timing without measuring, and what it rests on: the rate at which the store trained, or the device's."""
    trainer = run.config.trainer
    if tokens_per_second:
        step, source = run.step_tokens / tokens_per_second, "the rate that was measured in this store"
    elif (long := hours(run.step_flops, trainer, rates)) is not None:
        step, source = 3600 * long, f"{trainer.utilisation:.0%} of the peak rate"
    else:
        return None
    return Timing(step, FORWARD * step / run.step_tokens, 0.0), source


def _file(store: Path, run: PlannedRun, workers: int) -> Path:
    trainer = run.config.trainer
    how = [trainer.threads, trainer.accelerator, trainer.devices, trainer.nodes, trainer.strategy]
    name = fingerprint([run.root, *how, workers, machine()])
    return store / "timings" / f"{name[:16]}.json"


def read_timing(store: Path, run: PlannedRun, workers: int) -> Timing | None:
    """What was measured of a run's root with so many workers on this machine, or None."""
    try:
        record = read_record(_file(store, run, workers))
        return Timing(**{name: record[name] for name in ("step", "validation_token", "path")})
    except (FileNotFoundError, DamagedFile, KeyError):
        return None


def write_timing(store: Path, run: PlannedRun, workers: int, timing: Timing) -> None:
    """Keep what was measured."""
    write_record(_file(store, run, workers), asdict(timing))
