"""A decision within a budget stands for the same command; what makes runs faster or slower asks for a new one."""

from collections.abc import Callable

import pytest

from replay_sweeps.plan.decision import within_budget
from replay_sweeps.plan.timing import Timing
from replay_sweeps.study.study import Study
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.study_plan import plan_study

SIZE = ("+scale=tiny", "schedule.total_tokens=32768", "schedule.target_fraction=1/128")
ARMS = "schedule.replay_fraction=0,0.5"


class Measurement:
    """A worker that takes a second a step, and a hundredth for a token of validation."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, _: PlannedRun) -> Timing:
        self.times += 1
        return Timing(step=1.0, validation_token=0.01, path=0.0)


@pytest.fixture
def decided(study_of: Callable[..., Study]) -> Callable[..., Study]:
    """The study of a small grid with those runs that fit: decided(measurement, "setting=value", ...)."""

    def decide(measurement: Measurement, *extra: str) -> Study:
        study = study_of(*SIZE, ARMS, *extra)
        return within_budget(plan_study(study, None, None), measurement).study

    return decide


def test_fewer_validation_tokens_are_decided_on_anew(decided: Callable[..., Study]) -> None:
    measurement = Measurement()
    grid = ["schedule.target_epochs=4,2", "budget=10m"]
    slow = decided(measurement, *grid, "evaluation.tokens=4096")
    fast = decided(measurement, *grid, "evaluation.tokens=32")
    assert len(slow.runs) < len(fast.runs) == 4 and measurement.times == 1
    assert decided(measurement, *grid, "evaluation.tokens=4096").runs == slow.runs


def test_a_timing_is_of_so_many_devices(decided: Callable[..., Study]) -> None:
    measurement = Measurement()
    decided(measurement, "budget=1h")
    decided(measurement, "budget=1h", "trainer.devices=2", "plan=true")  # a plan: no such devices are looked for
    assert measurement.times == 2
    decided(measurement, "budget=2h", "trainer.devices=2", "plan=true")
    assert measurement.times == 2


def test_another_machine_keeps_the_decision_but_measures_for_a_new_one(
    decided: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    measurement = Measurement()
    first = decided(measurement, "budget=1h")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert decided(measurement, "budget=1h").runs == first.runs and measurement.times == 1
    decided(measurement, "budget=2h")
    assert measurement.times == 2
