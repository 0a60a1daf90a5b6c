"""How long a study takes and how much room its states take, estimated from what the store has measured."""

import heapq
from collections.abc import Mapping
from statistics import median

from replay_sweeps.store.retention import Keep
from replay_sweeps.store.states import Store
from replay_sweeps.store.status import Missing, MissingWork, StudyStatus
from replay_sweeps.tree.paths import StudyTree
from replay_sweeps.tree.state_name import ShortStateName

OPTIMIZER_STATES = 2  # AdamW's moments, each as large as the weights
MOST_RECORDS = 20  # that a rate is taken from


def measured_rate(store: Store, tree: str) -> float | None:
    """Tokens a second while states of a root were trained (the median of recent segments), or None."""
    found = []
    for name in sorted(store.names("records", tree))[-MOST_RECORDS:]:
        state = ShortStateName.parse(f"{tree}/{name}")
        record = store.segment_record(state) if state else None
        rates = [rate for rate in record.series["tokens_per_second"] if rate] if record else []
        if rates:
            found.append(median(rates))
    return median(found) if found else None


def seconds_left(status: StudyStatus, missing: Missing, workers: int) -> float | None:
    """Seconds of training that are left with so many workers, or None where some rate was never measured."""
    rates: dict[str, float | None] = {}
    total = longest = 0.0
    begins: list[float] = []
    for index, (path, work) in enumerate(zip(status.tree.paths, missing, strict=True)):
        if path.run.tree not in rates:
            rates[path.run.tree] = measured_rate(status.store, path.run.tree)
        rate = rates[path.run.tree]
        if rate is None:
            return None
        per_step = path.run.tokens_per_step / rate
        parent = status.tree.parents[index]
        begin = 0.0 if parent is None else begins[parent] + per_step * _steps_until(missing[parent], path.start)
        begins.append(begin)
        seconds = per_step * _steps_until(work, path.stop)
        total += seconds
        longest = max(longest, begin + seconds)
    return max(total / workers, longest)


def _steps_until(work: MissingWork | None, step: int) -> int:
    """How many steps of missing work come before a step."""
    return max(0, min(work.stop, step) - work.start) if work else 0


def state_bytes_peak(tree: StudyTree, size: Mapping[str, int], keep: Keep) -> int:
    """Peak bytes on disk of a study trained from nothing by one worker.

    Where a run ends its weights are kept, where paths branch off weights and optimizer. A state is dropped once its
    last dependent path has been trained (`keep`). `size`: bytes of a run's trained weights, by run_id.
    """
    here = most = 0
    waiting: dict[tuple[int, int], int] = {}  # how many paths still start from a state
    room: dict[tuple[int, int], int] = {}
    ready = [(-path.stop + path.start, index) for index, path in enumerate(tree.paths) if not path.start]
    heapq.heapify(ready)
    while ready:
        _, index = heapq.heappop(ready)
        path, branches = tree.paths[index], tree.branches[index]
        for step, resumable in tree.save_at(index, path.start, path.stop).items():
            room[index, step] = size[path.run.run_id] * (1 + OPTIMIZER_STATES * resumable)
            here += room[index, step]
            waiting[index, step] = len(branches.get(step, ()))
        most = max(most, here)
        if keep == "none":
            here -= sum(room[index, step] for step in path.run_ends() if not waiting[index, step])
        parent = tree.parents[index]
        if parent is not None:
            waiting[parent, path.start] -= 1
            stays = path.start in tree.paths[parent].run_ends() or path.start in tree.paths[parent].waypoints()
            if not waiting[parent, path.start] and (keep == "none" or (keep == "leaves" and not stays)):
                here -= room[parent, path.start]
        for step in branches:
            for branch in branches[step]:
                child = tree.paths[branch]
                heapq.heappush(ready, (child.start - child.stop, branch))
    return most
