"""The retention policy: which kept states nothing waits for any more."""

from collections.abc import Callable, Container, Iterator
from typing import Literal

from replay_sweeps.store.status import Missing, StudyStatus
from replay_sweeps.tree.state_name import StateName

Keep = Literal["leaves", "all", "none"]


def droppable(
    status: StudyStatus, missing: Missing, keep: Keep, kept_for_others: Container[str] | None = frozenset()
) -> Iterator[StateName]:
    """The kept states of a study that may be dropped.

        ●───────○────●────────○────────●──────────┤  path
        │       │    │        │        └ the end of a run: stays under `leaves`
        │       │    │        └ a waypoint: stays under `leaves`; under `none` while a later branch has missing work
        │       │    └ a branch begins here: stays until nothing is missing of the branch
        │       └ saved on the way: stays while work that is missing begins at it or before it
        └ the state that the path begins with belongs to its parent

    Under `all` nothing is dropped. `kept_for_others`: paths of states that other studies of the store keep; None where
    that is not known, and nothing is dropped.
    """
    for index, steps in enumerate(status.kept() if keep != "all" and kept_for_others is not None else ()):
        path, work = status.tree.paths[index], missing[index]
        ends, waypoints, branches = path.run_ends(), path.waypoints(), status.tree.branches[index]
        unfinished = {step for step, paths in branches.items() if any(missing[branch] for branch in paths)}
        for step in steps:
            waited_for = step in unfinished or (work is not None and step >= work.start)
            kept_for_later = keep == "leaves" and (step in ends or step in waypoints)
            on_the_way = step in waypoints and step < max(unfinished, default=0)
            state = status.tree.state(index, step)
            if not (waited_for or kept_for_later or on_the_way or state.path in (kept_for_others or ())):
                yield state


def drop_unneeded(
    status: StudyStatus, missing: Missing, keep: Keep, kept_for_others: Callable[[], Container[str] | None]
) -> None:
    """Drop the states of a study that may be dropped; what others keep is asked for only where there are any."""
    if next(droppable(status, missing, keep), None) is not None:
        for state in droppable(status, missing, keep, kept_for_others()):
            status.store.drop_state(state)
