"""A grid cut to a budget of time: the runs that fit, in the study's order, and what is left out, in words."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import known_settings, with_role
from replay_sweeps.plan.drawing import axis_value
from replay_sweeps.schedule.behaviour import first_difference
from replay_sweeps.tree.planned_run import PlannedRun

PLANNED = 0.9  # share of a budget that is planned for; the rest is for what was not measured, and the analysis
# what a reader gives up most readily is said first: seeds, learning rates before epochs, replay fractions before N
_SAID_FIRST = (*with_role("seed"), *reversed(with_role("nuisance")), *with_role("axis"))


@dataclass(frozen=True)
class Costs:
    """Seconds of one worker, each by the root of a tree: an optimizer step, validation per token, beginning a path and
    saving its states; and the tokens of each validation store."""

    step: Mapping[str, float]
    validation_token: Mapping[str, float]
    path: Mapping[str, float]
    tokens: Mapping[str, int]


@dataclass(frozen=True)
class Choice:
    """Which runs fit (by their place in the grid), which do not, and how many seconds of work those that fit are."""

    kept: tuple[int, ...]
    left_out: tuple[int, ...]
    seconds: float


class TooLittle(Exception):  # noqa: N818 - a finding
    """Not even the smallest comparison fits: `runs`, its places in the grid; the seconds of its steps, of the rest, and
    of its longest run's steps, which one worker trains alone."""

    def __init__(self, runs: Sequence[int], steps: float, rest: float, longest: float) -> None:
        super().__init__(f"{steps + rest:.0f} seconds")
        self.runs, self.steps, self.rest, self.longest = runs, steps, rest, longest


class _Bill:
    """What runs cost together: every step of the prefix tree, every validation and every path once."""

    def __init__(self, runs: Sequence[PlannedRun], costs: Costs, free: Collection[int], taken: Sequence[int] = ()):
        self.runs, self.costs, self.free = runs, costs, free
        self.taken: list[int] = []
        self.observed: set[tuple[str, str]] = set()
        self.steps = self.rest = 0.0
        self.take_all(taken)

    @property
    def seconds(self) -> float:
        return self.steps + self.rest

    def more(self, index: int) -> tuple[float, float]:
        """Seconds of steps, and of the rest, that a run adds; what is done already costs nothing, and lends no trunk,
        since its states may be gone."""
        if index in self.free:
            return 0.0, 0.0
        run, costs = self.runs[index], self.costs
        others = (self.runs[other] for other in self.taken if other not in self.free)
        shared = [first_difference(run.behaviour, other.behaviour) for other in others if other.root == run.root]
        steps = run.steps - max(shared, default=0)
        tokens = sum(costs.tokens[store] for _, store in _observations(run) - self.observed)
        rest = tokens * costs.validation_token[run.root] + (costs.path[run.root] if steps else 0.0)
        return steps * costs.step[run.root], rest

    def take(self, index: int) -> None:
        steps, rest = self.more(index)
        self.steps, self.rest = self.steps + steps, self.rest + rest
        self.taken.append(index)
        if index not in self.free:
            self.observed |= _observations(self.runs[index])

    def take_all(self, indices: Sequence[int]) -> None:
        for index in indices:
            self.take(index)

    def with_more(self, indices: Sequence[int]) -> float:
        """Seconds with these runs, too."""
        other = _Bill(self.runs, self.costs, self.free)
        other.taken, other.observed = list(self.taken), set(self.observed)
        other.steps, other.rest = self.steps, self.rest
        other.take_all(indices)
        return other.seconds


def _observations(run: PlannedRun) -> set[tuple[str, str]]:
    return {(run.key(item.step), item.store) for item in run.observations}


def choose(
    runs: Sequence[PlannedRun],
    costs: Costs,
    budget: float,
    workers: int = 1,
    done: Collection[int] = (),
    grids: Sequence[int] = (),
) -> Choice:
    """The runs that `workers` finish within `budget` seconds: taken in order, what does not fit being left out.

    Runs of a grid that differ in ρ alone are taken together or not at all: else the arms of a comparison would be tuned
    over different settings, the dearer one over fewer. `grids` tells which of a study's grids each run is in: those of
    a later grid wait for it, since grids come in the order of their importance. Room is kept for the smallest
    comparison, a run without replay and one with, alike in all else, at the largest N that is replayed. Raises
    TooLittle where that does not fit.
    """
    bill = _Bill(runs, costs, done)
    pairs = _comparisons(runs)
    pair = min(pairs, key=bill.with_more, default=(0,))
    usable = PLANNED * budget
    least = _Bill(runs, costs, done, pair)
    alone = {i: run.steps * costs.step[run.root] for i, run in enumerate(runs) if i not in done}
    slow = {i for i, seconds in alone.items() if seconds > usable}
    if least.seconds > usable * workers or slow & {*pair}:
        raise TooLittle(pair, least.steps, least.rest, max(alone.get(i, 0.0) for i in pair))
    for block in _blocks(runs, grids):
        missing = block if _has_comparison(bill.taken, pairs) else [*block, *pair]
        missing = [i for i in dict.fromkeys(missing) if i not in bill.taken]
        if not slow & {*block} and bill.with_more(missing) <= usable * workers:
            bill.take_all(block)
    if not _has_comparison(bill.taken, pairs):
        bill.take_all([index for index in pair if index not in bill.taken])
    kept = sorted(bill.taken)
    return Choice(tuple(kept), tuple(index for index in range(len(runs)) if index not in kept), bill.seconds)


def _blocks(runs: Sequence[PlannedRun], grids: Sequence[int]) -> list[list[int]]:
    """The runs of each grid that differ in ρ alone, in the order in which the first of each stands."""
    found: dict[tuple[int, RunConfig], list[int]] = {}
    for index, run in enumerate(runs):
        found.setdefault((grids[index] if grids else 0, _but_replay(run.config)), []).append(index)
    return list(found.values())


def _has_comparison(taken: Sequence[int], pairs: Sequence[tuple[int, ...]]) -> bool:
    return not pairs or any(set(pair) <= set(taken) for pair in pairs)


def _comparisons(runs: Sequence[PlannedRun]) -> list[tuple[int, ...]]:
    """Pairs of a run without replay and one with, alike in all else, at the largest N at which there are such."""
    plain: dict[RunConfig, int] = {}
    found: list[tuple[int, tuple[int, int]]] = []
    for index, run in enumerate(runs):
        if run.config.schedule.replay_fraction == 0:
            plain.setdefault(_but_replay(run.config), index)
    for index, run in enumerate(runs):
        against = plain.get(_but_replay(run.config))
        if run.config.schedule.replay_fraction and against is not None:
            found.append((run.schedule.target_rows * run.config.trainer.row_length, (against, index)))
    largest = max((size for size, _ in found), default=0)
    return [pair for size, pair in found if size == largest]


def _but_replay(run: RunConfig) -> RunConfig:
    return replace(run, schedule=replace(run.schedule, replay_fraction=type(run.schedule.replay_fraction)(0)))


def in_words(run: RunConfig, axes: Sequence[str]) -> str:
    """What tells a run from others: "ρ = 0.5, E = 4"."""
    return ", ".join(dict.fromkeys(_shown(axis, axis_value(run, axis)) for axis in axes))


def left_out_in_words(kept: Sequence[RunConfig], left: Sequence[RunConfig], axes: Sequence[str]) -> list[str]:
    """Groups of the runs that are left out: by a value that no run that stays has, else by a pair of values."""
    named = [axis for axis in _SAID_FIRST if axis in axes and known_settings()[axis].symbol]
    order = list(dict.fromkeys([*named, *axes]))
    have = {(axis, axis_value(run, axis)) for run in kept for axis in order}
    pairs = {pair for run in kept for pair in _pairs(run, order)}
    groups: dict[str, int] = {}
    for run in left:
        new = [(axis, axis_value(run, axis)) for axis in order if (axis, axis_value(run, axis)) not in have]
        together = [pair for pair in _pairs(run, order) if pair not in pairs]
        if new:
            label = _shown(*new[0])
        elif together:
            label = " with ".join(_shown(*value) for value in together[0])
        else:
            label = "other combinations"
        groups[label] = groups.get(label, 0) + 1
    return [f"{label} ({count} {'run' if count == 1 else 'runs'})" for label, count in groups.items()]


def _pairs(run: RunConfig, axes: Sequence[str]) -> Iterator[tuple[tuple[str, Any], ...]]:
    yield from itertools.combinations([(axis, axis_value(run, axis)) for axis in axes], 2)


def _shown(axis: str, value: Any) -> str:
    if axis == "schedule.target_share":
        return "all of the target" if value == 1 else f"{value} of the target"
    known = known_settings().get(axis)  # none of the choice of a whole group
    word, shown = known.symbol if known and known.symbol else axis, _number(value)
    return f"{word} {shown}" if word == "seed" else f"{word} = {shown}"


def _number(value: Any) -> str:
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return str(value)


def would_fit(too_little: TooLittle, budget: float, workers: int, lora: bool) -> str:
    """What to do about a budget that is too small; `lora`, whether adapters alone are trained already."""
    usable = PLANNED * budget * workers
    least = max((too_little.steps + too_little.rest) / workers, too_little.longest) / PLANNED
    fits = [f"budget={short_time(least)}"]
    if too_little.rest < usable:
        parts = math.ceil(max(too_little.steps / (usable - too_little.rest), too_little.longest * workers / usable))
        fits.append(f"1/{max(parts, 2)} of the target text")
    fits += ["a smaller model"] if lora else ["LoRA (model.lora_rank=16)", "a smaller model"]
    return f"{', '.join(fits)}, or fewer evaluation.tokens"


def short_time(seconds: float) -> str:
    """A duration as a budget is given, rounded up: 90s, 45m, 2.5h."""
    if seconds < 120:
        return f"{math.ceil(seconds)}s"
    return f"{math.ceil(seconds / 60)}m" if seconds < 7200 else f"{math.ceil(seconds / 360) / 10:g}h"
