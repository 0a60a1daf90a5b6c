"""How long a study takes and how much room its states take, estimated from what the store has measured."""

import heapq
from collections.abc import Mapping, Sequence
from statistics import median

from replay_sweeps.store.states import Store
from replay_sweeps.store.status import Keep, Ledger, Need

OPTIMIZER_STATES = 2  # AdamW's moments, each as large as the weights
MOST_RECORDS = 20  # that a rate is taken from


def measured_rate(store: Store, tree: str) -> float | None:
    """Tokens a second while states of a root were trained (the median of recent stretches), or None."""
    found = []
    for name in sorted(store.names("records", tree))[-MOST_RECORDS:]:
        segment_record = store.segment_record_named(tree, name)
        rates = [rate for rate in segment_record.series["tokens_per_second"] if rate] if segment_record else []
        if rates:
            found.append(median(rates))
    return median(found) if found else None


def seconds_left(ledger: Ledger, needs: Sequence[Need | None], workers: int) -> float | None:
    """Seconds of training that are left with so many workers, or None where some rate was never measured."""
    rates: dict[str, float | None] = {}
    total = longest = 0.0
    begins: list[float] = []
    for index, (path, need) in enumerate(zip(ledger.paths, needs, strict=True)):
        tree, trainer = path.run.root[:16], path.run.config.trainer
        if tree not in rates:
            rates[tree] = measured_rate(ledger.store, tree)
        rate = rates[tree]
        if rate is None:
            return None
        per_step = trainer.tokens_per_step / rate
        parent = ledger.parents[index]
        begin = 0.0 if parent is None else begins[parent] + per_step * _trained(needs[parent], path.start)
        begins.append(begin)
        seconds = per_step * _trained(need, path.stop)
        total += seconds
        longest = max(longest, begin + seconds)
    return max(total / workers, longest)


def _trained(need: Need | None, until: int) -> int:
    """How many steps of a need come before a step."""
    return max(0, min(need.stop, until) - need.start) if need else 0


def state_bytes_peak(ledger: Ledger, size: Mapping[str, int], keep: Keep) -> int:
    """Bytes of states at the fullest moment of a study trained from nothing: weights where runs end, weights and
    optimizer where they part, a state being dropped when the last that waits for it is done (`keep`). `size` is that of
    a run's trained weights, in bytes."""
    here = most = 0
    waiting: dict[tuple[int, int], int] = {}  # how many paths still start from a state
    room: dict[tuple[int, int], int] = {}
    ready = [(-path.stop + path.start, index) for index, path in enumerate(ledger.paths) if not path.start]
    heapq.heapify(ready)
    while ready:
        _, index = heapq.heappop(ready)
        path, branches = ledger.paths[index], ledger.branches[index]
        ends = {node.stop for node in path.nodes if node.runs}
        saved = ledger.save_at(index, Need(path.start, path.stop, True, frozenset()))
        for step, resumable in saved.items():
            room[index, step] = size[path.run.run_id] * (1 + OPTIMIZER_STATES * resumable)
            here += room[index, step]
            waiting[index, step] = len(branches.get(step, ()))
        most = max(most, here)
        if keep == "none":
            here -= sum(room[index, step] for step in ends if not waiting[index, step])
        parent = ledger.parents[index]
        if parent is not None:
            waiting[parent, path.start] -= 1
            ends_there = any(node.stop == path.start and node.runs for node in ledger.paths[parent].nodes)
            stays = ends_there or path.start in ledger.paths[parent].waypoints()
            if not waiting[parent, path.start] and (keep == "none" or (keep == "leaves" and not stays)):
                here -= room[parent, path.start]
        for step in branches:
            for branch in branches[step]:
                child = ledger.paths[branch]
                heapq.heappush(ready, (child.start - child.stop, branch))
    return most
