"""Around the steps of a segment: which hook is called when, and which time counts."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from replay_sweeps.training.callbacks import SegmentCallback
from replay_sweeps.training.lit_module import ReplayModule
from tests.fixtures.tiny_training import tiny_run

MICRO_BATCHES = 2


@pytest.fixture
def events() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, int]]) -> ReplayModule:
    """A module that notes what it is asked, and logs steps 2 and 4."""
    run = tiny_run(tmp_path).run
    module = ReplayModule(nn.Linear(2, 2), nn.Identity(), run.behaviour, run.config.optimizer, log_every=2)
    logged: dict[str, float | None] = {"train_generic_loss": 3.0, "train_target_loss": None}
    logged |= {"gradient_norm": 1.0, "learning_rate": 0.1}

    def end_step(step: int) -> None:
        events.append(("end", step))
        module.logged = logged if step in (2, 4) else None

    monkeypatch.setattr(module, "begin_step", lambda step: events.append(("begin", step)))
    monkeypatch.setattr(module, "sync_gradients", lambda sync: events.append(("sync", int(sync))))
    monkeypatch.setattr(module, "end_step", end_step)
    return module


def run_steps(callback: SegmentCallback, module: ReplayModule, start: int, stop: int) -> None:
    """Call the callback as a trainer does."""
    callback.on_train_start(None, module)
    for index in range((stop - start) * MICRO_BATCHES):
        batch: dict[str, Any] = {"step": start + index // MICRO_BATCHES}
        callback.on_train_batch_start(None, module, batch, index)
        callback.on_train_batch_end(None, module, None, batch, index)


def callback_from(start: int, events: list[tuple[str, int]]) -> SegmentCallback:
    return SegmentCallback(
        start,
        MICRO_BATCHES,
        64,
        1e-3,
        at_state=lambda step: events.append(("state", step)),
        on_step=lambda step: events.append(("step", step)),
    )


def test_the_hooks_are_called_once_a_step_and_gradients_are_reduced_at_its_last_micro_batch(
    module: ReplayModule, events: list[tuple[str, int]]
) -> None:
    run_steps(callback_from(1, events), module, 1, 3)
    of_step = [
        [("begin", step), ("sync", 0), ("sync", 1), ("end", step), ("step", step + 1), ("state", step + 1)]
        for step in (1, 2)
    ]
    assert events == [("state", 1), *of_step[0], *of_step[1]]


def test_a_series_has_the_logged_steps_and_is_taken_once(module: ReplayModule, events: list[tuple[str, int]]) -> None:
    callback = callback_from(1, events)
    run_steps(callback, module, 1, 6)
    series = callback.take_series()
    assert series["step"] == [2, 4] and series["train_generic_loss"] == [3.0, 3.0]
    assert series["train_target_loss"] == [None, None]
    assert series["mfu"] == [pytest.approx(1e-3 * rate) for rate in series["tokens_per_second"] if rate]
    assert {len(column) for column in callback.take_series().values()} == {0}


def test_time_spent_at_states_does_not_count_towards_tokens_per_second(
    module: ReplayModule, events: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("replay_sweeps.training.callbacks.time.perf_counter", lambda: clock[0])

    def pass_time(seconds: float) -> None:
        clock[0] += seconds

    callback = callback_from(1, events)
    callback.at_state = lambda step: pass_time(100.0)
    callback.on_step = lambda step: pass_time(1.0)
    run_steps(callback, module, 1, 5)
    # steps 1 and 2 until the first log: 1 s (the second's own comes after it); then 2 s until the second
    assert callback.take_series()["tokens_per_second"] == [pytest.approx(2 * 64 / 1.0), pytest.approx(2 * 64 / 2.0)]
