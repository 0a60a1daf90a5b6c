"""What a worker's seconds are made of, measured on a worker whose seconds are known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.plan.timing import Timing, measure
from replay_sweeps.tree.paths import Segment
from tests.fixtures.tiny_training import tiny_run

BUILD, BEGIN, STEP, SAVE, VALIDATION = 50.0, 2.0, 3.0, 0.5, 70.0  # seconds
TOKENS = 112  # of the validation set


class KnownWorker:
    """A worker on a clock of its own: its first segment builds the model, its first step ever takes longer."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.segments: list[Segment] = []
        self.compiled = False

    def train(self, segment: Segment, on_step: Callable[[int], None]) -> None:
        self.now += BEGIN if self.segments else BUILD
        self.segments.append(segment)
        self.now += VALIDATION * sum(map(len, segment.observe_at.values()))
        for step in range(segment.start, segment.stop):
            self.now += STEP if self.compiled else 5 * STEP
            self.compiled = True
            on_step(step + 1)
        self.now += SAVE * len(segment.save_at)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> KnownWorker:
    worker = KnownWorker()
    monkeypatch.setattr("replay_sweeps.plan.timing.time.perf_counter", lambda: worker.now)
    return worker


def test_the_time_of_a_step_a_validated_token_and_a_path_are_told_apart(worker: KnownWorker, tmp_path: Path) -> None:
    worker.compiled = True
    timing = measure(tiny_run(tmp_path).run, TOKENS, worker.train)
    assert timing == Timing(
        step=pytest.approx(STEP),
        validation_token=pytest.approx(VALIDATION / TOKENS),
        path=pytest.approx(BEGIN + 2 * SAVE),
    )


def test_the_time_of_compiling_is_not_that_of_a_step(worker: KnownWorker, tmp_path: Path) -> None:
    assert measure(tiny_run(tmp_path).run, TOKENS, worker.train).step == pytest.approx(STEP)


def test_what_is_measured_is_work_that_the_study_needs(worker: KnownWorker, tmp_path: Path) -> None:
    tiny = tiny_run(tmp_path)
    measure(tiny.run, TOKENS, worker.train)
    generic, target = tiny.validation_set("generic_loss"), tiny.validation_set("target_loss")
    first, second, steps = worker.segments
    assert (first.stop, first.observe_at) == (0, {0: frozenset({generic})})
    assert (second.stop, second.observe_at) == (0, {0: frozenset({target})})
    assert (steps.start, steps.stop, dict(steps.save_at)) == (0, 3, {3: True})
