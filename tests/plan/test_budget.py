"""A grid is cut to a budget of time: in the study's order, never below the smallest comparison, and the same again."""

import math
from collections.abc import Callable

import pytest

from replay_sweeps.plan.budget import Costs, TooLittle, choose, left_out_in_words, short_time, would_fit
from replay_sweeps.study.checks import budget_seconds
from replay_sweeps.tree.study_plan import StudyPlan

GRID = ["schedule.replay_fraction=0,0.5,0.75", "schedule.target_epochs=4,2,1", "schedule.target_fraction=1/128"]


class _Every(dict):
    """One value for every key."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def __missing__(self, _: str) -> float:
        return self.value


def costs(step: float = 1.0, token: float = 0.0, path: float = 0.0) -> Costs:
    return Costs(_Every(step), _Every(token), _Every(path), _Every(100))


def cells(plan: StudyPlan, places: tuple[int, ...]) -> list[tuple[float, int]]:
    chosen = [plan.runs[index].config.schedule for index in places]
    return [(float(schedule.replay_fraction), schedule.target_epochs) for schedule in chosen]


def test_a_shared_step_is_paid_once(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of("schedule.replay_fraction=0,0.5", "schedule.target_fraction=1/128")
    shared = sum(run.steps for run in plan.runs) - choose(plan.runs, costs(), 1e9).seconds
    assert 0 < shared < plan.runs[0].steps  # the trunk of 64 steps, without the stretch in which rho tells
    assert choose(plan.runs, costs(), 1e9).kept == (0, 1)


def test_validation_and_the_beginning_of_paths_are_paid_too(plan_of: Callable[..., StudyPlan]) -> None:
    runs = plan_of("schedule.replay_fraction=0,0.5", "schedule.target_fraction=1/128").runs
    states = {(run.key(item.step), item.store) for run in runs for item in run.observations}
    assert choose(runs, costs(step=0, token=0.5), 1e9).seconds == len(states) * 100 * 0.5
    assert choose(runs, costs(step=0, path=7), 1e9).seconds == 14


def test_runs_are_taken_in_the_order_of_the_study_while_they_fit(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of(*GRID)
    whole = choose(plan.runs, costs(), 1e9)
    assert whole.kept == tuple(range(9)) and whole.left_out == ()
    some = choose(plan.runs, costs(), 85)
    assert some.kept == tuple(sorted(some.kept)) and some.seconds <= 0.9 * 85 and some.left_out
    more = choose(plan.runs, costs(), 85, workers=2)
    assert set(some.kept) < set(more.kept) and more.seconds <= 2 * 0.9 * 85


def test_room_is_kept_for_the_smallest_comparison(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of("schedule.target_epochs=4,2,1", "schedule.replay_fraction=0,0.5", "schedule.target_fraction=1/128")
    least = choose(plan.runs[-2:], costs(), 1e9)
    tight = choose(plan.runs, costs(), least.seconds / 0.9 + 1e-6)
    rho, _ = zip(*cells(plan, tight.kept), strict=True)
    assert {0.0, 0.5} == set(rho)
    with pytest.raises(TooLittle) as told:
        choose(plan.runs, costs(), least.seconds / 0.9 - 1)
    assert [plan.runs[index].config.schedule.replay_fraction for index in told.value.runs] == [0, 0.5]
    said = would_fit(told.value, 30, 1, lora=False)
    assert "budget=" in said and "of the target text" in said and "LoRA" in said


@pytest.mark.parametrize("outer", ["epochs", "replay"])
def test_both_arms_of_a_comparison_are_tuned_over_the_same_settings(
    outer: str, plan_of: Callable[..., StudyPlan]
) -> None:
    axes = ["schedule.target_epochs=4,2,1", "schedule.replay_fraction=0,0.5"]
    plan = plan_of("schedule.target_fraction=1/128", *(axes if outer == "epochs" else reversed(axes)))
    whole = choose(plan.runs, costs(), 1e9).seconds
    for budget in range(75, int(whole / 0.9) + 2):
        kept = cells(plan, choose(plan.runs, costs(), budget).kept)
        assert {e for rho, e in kept if rho == 0} == {e for rho, e in kept if rho == 0.5}


def test_what_a_later_grid_adds_to_a_comparison_waits_for_the_grids_before_it(
    plan_of: Callable[..., StudyPlan],
) -> None:
    plan = plan_of(
        "schedule.target_epochs=4,2", "schedule.target_fraction=1/128", "schedule.replay_fraction=0,0.5,0.75"
    )
    grids = [int(rho == 0.75) for rho, _ in cells(plan, tuple(range(6)))]
    first = [index for index, grid in enumerate(grids) if grid == 0]
    enough = choose([plan.runs[index] for index in first], costs(), 1e9).seconds
    assert choose(plan.runs, costs(), enough / 0.9 + 0.01, grids=grids).kept == tuple(first)
    assert choose(plan.runs, costs(), enough / 0.9 + 0.01).kept != tuple(first)


def test_the_smallest_comparison_stays_where_no_whole_row_of_replay_fractions_fits(
    plan_of: Callable[..., StudyPlan],
) -> None:
    grid = ["schedule.target_fraction=1/128", "schedule.target_epochs=4,2", "schedule.replay_fraction=0,0.5,0.75"]
    plan = plan_of(*grid)
    least = min(choose([plan.runs[i], plan.runs[j]], costs(), 1e9).seconds for i, j in ((3, 4), (3, 5)))
    kept = cells(plan, choose(plan.runs, costs(), least / 0.9 + 0.01).kept)
    assert len(kept) == 2 and {e for _, e in kept} == {2} and 0 in {rho for rho, _ in kept}


def test_what_is_done_costs_nothing(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of(*GRID)
    choice = choose(plan.runs, costs(), 1.0, done=range(9))
    assert choice.kept == tuple(range(9)) and choice.seconds == 0


def test_a_run_that_one_worker_cannot_finish_in_time_is_left_out(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of("schedule.replay_fraction=0,0.5", "schedule.target_fraction=1/128")
    longest = max(run.steps for run in plan.runs)
    with pytest.raises(TooLittle) as told:
        choose(plan.runs, costs(), longest, workers=100)
    enough = math.ceil(longest / 0.9)
    assert f"budget={enough}s" in would_fit(told.value, longest, 100, lora=False)
    assert choose(plan.runs, costs(), enough, workers=100).kept == (0, 1)


def test_what_is_left_out_is_said_in_groups(plan_of: Callable[..., StudyPlan]) -> None:
    runs = [run.config for run in plan_of(*GRID, "schedule.order_seed=0,1").runs]
    axes = ["schedule.replay_fraction", "schedule.target_epochs", "schedule.order_seed"]
    kept = [r for r in runs if r.schedule.order_seed == 0 and r.schedule.replay_fraction < 0.6]
    kept = [r for r in kept if (r.schedule.replay_fraction, r.schedule.target_epochs) != (0.5, 4)]
    left = [run for run in runs if run not in kept]
    said = left_out_in_words(kept, left, axes)
    assert sorted(said) == ["E = 4 with ρ = 0.5 (1 run)", "seed 1 (9 runs)", "ρ = 0.75 (3 runs)"]


def test_budgets_are_times() -> None:
    seconds = [budget_seconds(text) for text in ("90s", "45m", "2h", "1d", "1.5h", "2", "h", "-1h", "2 h")]
    assert seconds == [90, 2700, 7200, 86_400, 5400, None, None, None, None]
    assert [short_time(seconds) for seconds in (89.2, 125, 7300)] == ["90s", "3m", "2.1h"]
