"""Which kept states may be dropped while a study is not finished."""

from collections.abc import Callable

import pytest

from replay_sweeps.store.retention import droppable
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.tree.study_plan import StudyPlan
from tests.fixtures.studies import FakeTraining

GRID = ["schedule.replay_fraction=0,0.5,0.75", "schedule.target_fraction=1/128", "schedule.target_epochs=4"]


@pytest.fixture
def trunk_trained(plan_of: Callable[..., StudyPlan], training: FakeTraining) -> StudyStatus:
    """A study of which the first path is trained, its waypoints kept, and the branches are not."""
    status = StudyStatus(plan_of(*GRID, "trainer.waypoints=2").tree, training.store)
    work = status.missing()[0]
    assert work is not None
    training(status.segment(0, work), None)  # type: ignore[arg-type]
    return status


@pytest.mark.parametrize("keep", ["leaves", "none"])
def test_a_branchs_first_state_stays_until_nothing_is_missing_of_the_branch(
    keep: str, trunk_trained: StudyStatus
) -> None:
    tree, missing = trunk_trained.tree, trunk_trained.missing()
    branches = {step for step, paths in tree.branches[0].items() if any(missing[path] for path in paths)}
    assert branches
    dropped = {state.step for state in droppable(trunk_trained, missing, keep)}  # type: ignore[arg-type]
    assert not dropped & branches


def test_waypoints_stay_under_none_until_no_branch_behind_them_has_work(
    trunk_trained: StudyStatus, training: FakeTraining
) -> None:
    tree, missing = trunk_trained.tree, trunk_trained.missing()
    waypoints, last = set(tree.paths[0].waypoints()), max(tree.branches[0])
    on_the_way = {step for step in waypoints if step < last}
    assert on_the_way - tree.branches[0].keys()
    assert not on_the_way & {state.step for state in droppable(trunk_trained, missing, "none")}
    while any(missing := trunk_trained.missing()):
        for index, work in enumerate(missing):
            if work and work.ready:
                training(trunk_trained.segment(index, work), None)  # type: ignore[arg-type]
    assert waypoints <= {state.step for state in droppable(trunk_trained, missing, "none")}
