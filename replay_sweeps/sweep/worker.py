"""A worker: finds the next path of the tree that is ready, trains what the store lacks of it, until nothing is."""

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from replay_sweeps.errors import DamagedFile
from replay_sweeps.sweep.plan import Node, PlannedRun, heavy_paths, prefix_tree
from replay_sweeps.sweep.store import StateName, Store, Stretch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Path:
    """Nodes trained in one go. `run` passes through all of them, so its behaviour is that of the path."""

    nodes: tuple[Node, ...]
    run: PlannedRun

    @property
    def start(self) -> int:
        return self.nodes[0].start

    @property
    def stop(self) -> int:
        return self.nodes[-1].stop


@dataclass(frozen=True)
class Work:
    """A stretch to train: from the kept state at `start` (0: the initial weights) to `stop`."""

    run: PlannedRun
    start: int
    stop: int
    save_at: Mapping[int, bool]  # step: whether training must be able to go on from there
    observe_at: Mapping[int, frozenset[str]]  # step: fingerprints of the validation stores

    def state(self, step: int) -> StateName:
        """The name of the run's state after `step` steps."""
        return StateName(self.run.root, step, self.run.key(step))


@dataclass(frozen=True)
class Need:
    """What the store lacks of a path: from the state at `start` to `stop`; `ready` when training can begin."""

    start: int
    stop: int
    ready: bool
    save: frozenset[int]  # steps whose states others wait for


@dataclass
class Ledger:
    """What is done and what is not, read from the store; remembers what was seen, since nothing there changes."""

    runs: Sequence[PlannedRun]
    store: Store
    paths: list[Path] = field(init=False)
    parents: list[int | None] = field(init=False)  # the path that each path branches off from
    _seen: set[tuple[str, str]] = field(default_factory=set)
    _stretches: dict[str, Stretch] = field(default_factory=dict)
    _keys: dict[tuple[int, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        roots = prefix_tree(self.runs)
        self.observed: dict[int, dict[int, set[str]]] = {}
        self.paths = [Path(tuple(nodes), self.runs[nodes[-1].run]) for nodes in heavy_paths(roots)]
        holder = {id(node): index for index, path in enumerate(self.paths) for node in path.nodes}
        self.parents = [holder[id(path.nodes[0].parent)] if path.nodes[0].parent else None for path in self.paths]
        for path in self.paths:
            for node in path.nodes:
                for run in node.runs:
                    self._place_observations(self.runs[run], node, holder)

    def _place_observations(self, run: PlannedRun, end: Node, holder: Mapping[int, int]) -> None:
        for observation in run.observations:
            node = next(node for node in end.chain() if node.start < observation.step or node.parent is None)
            at = self.observed.setdefault(holder[id(node)], {})
            at.setdefault(observation.step, set()).add(observation.store)

    def state(self, path: Path, step: int) -> StateName:
        """The name of a path's state."""
        name = (id(path), step)
        if name not in self._keys:
            self._keys[name] = path.run.key(step)
        return StateName(path.run.root, step, self._keys[name])

    def end(self, path: Path) -> StateName:
        """The last state of a path."""
        return self.state(path, path.stop)

    def is_observed(self, state: StateName, store: str) -> bool:
        """Whether the state's loss on a validation store is known."""
        if (state.key, store) not in self._seen:
            if self.store.observation(state, store) is None:
                return False
            self._seen.add((state.key, store))
        return True

    def stretch(self, state: StateName) -> Stretch | None:
        """The stretch that produced a state, if the store knows it."""
        if state.key not in self._stretches:
            found = self.store.stretch(state)
            if found is None:
                return None
            self._stretches[state.key] = found
        return self._stretches[state.key]

    def broken_at(self, path: Path, stop: int) -> int | None:
        """The latest step up to which the chain of stretches that leads to a state is missing; None if it is whole."""
        while stop > 0:
            stretch = self.stretch(self.state(path, stop))
            if stretch is None:
                return stop
            stop = stretch.parent_step
        return None

    def kept(self, path: Path, first: int, last: int) -> list[int]:
        """The steps in [first, last] at which the path's state is kept and training could go on, ascending."""
        found = []
        for step, keys in self.store.kept_steps(path.run.root).items():
            if first <= step <= last and step > 0:
                state = self.state(path, step)
                if state.key[:32] in keys and self.store.is_kept(state):
                    found.append(step)
        return sorted(found)

    def needs(self) -> list[Need | None]:
        """For each path what is to be trained of it next, or None where all is done."""
        wanted: list[set[int]] = [set() for _ in self.paths]  # states of a path that another path waits for
        needs: list[Need | None] = [None] * len(self.paths)
        for index in reversed(range(len(self.paths))):
            path = self.paths[index]
            for node in path.nodes:
                broken = self.broken_at(path, node.stop) if node.runs else None
                if broken is not None:
                    wanted[self._holder(index, broken)].add(broken)
            unobserved = set(self._unobserved(index))
            at_hand = [step for step in unobserved if step and self.store.has_weights(self.state(path, step))]
            if at_hand:
                needs[index] = Need(at_hand[0], at_hand[0], True, frozenset())
                continue
            steps = wanted[index] | unobserved
            if not steps:
                continue
            kept = self.kept(path, path.start, max(steps))
            first = min(steps)
            start = max((step for step in kept if step <= first), default=None)
            ready = start is not None or path.start == 0
            if start is None:
                start = path.start
                if start:
                    wanted[self._holder(index, start)].add(start)
            ahead = [step for step in kept if step > first]
            stop = max(step for step in steps if not ahead or step <= ahead[0])
            needs[index] = Need(start, stop, ready, frozenset(wanted[index]))
        return needs

    def _holder(self, index: int, step: int) -> int:
        """The path among this one and its ancestors in which the state after `step` is made."""
        while step <= self.paths[index].start and self.parents[index] is not None:
            index = self.parents[index]  # type: ignore[assignment]
        return index

    def _unobserved(self, index: int) -> Iterator[int]:
        """The steps of a path at which a validation loss is missing."""
        for step, stores in self.observed.get(index, {}).items():
            state = self.state(self.paths[index], step)
            if not all(self.is_observed(state, store) for store in stores):
                yield step

    def save_at(self, index: int, need: Need) -> dict[int, bool]:
        """The steps of a need at which a state is saved, and whether training must be able to go on from it."""
        path = self.paths[index]
        saved = {node.stop: False for node in path.nodes if node.runs}
        saved |= {child.start: True for child, parent in zip(self.paths, self.parents, strict=True) if parent == index}
        saved |= dict.fromkeys(need.save, True)
        waypoints = path.run.config.trainer.waypoints
        if waypoints:
            every = max(1, path.run.steps // waypoints)
            trunk = next(
                (piece.start for piece in path.run.behaviour.pieces if any(mix.target for mix in piece.mixes)),
                path.run.steps,
            )
            saved |= dict.fromkeys(range(every, trunk, every), True)
        return {step: resumable for step, resumable in saved.items() if need.start < step <= need.stop}

    def observe_at(self, index: int, need: Need) -> dict[int, frozenset[str]]:
        """The validation losses that are missing within a need."""
        path = self.paths[index]
        found = {}
        for step, stores in self.observed.get(index, {}).items():
            if need.start <= step <= need.stop:
                state = self.state(path, step)
                missing = frozenset(store for store in stores if not self.is_observed(state, store))
                if missing:
                    found[step] = missing
        return found


def work_until_done(
    ledger: Ledger,
    train: Callable[[Work], None],
    on_scan: Callable[[Sequence[Need | None]], None] = lambda _: None,
    fail_fast: bool = False,
) -> None:
    """Train ready paths, the longest chain first, until none is left but failed ones.

    A path whose parent state turns out damaged is planned again. Why a path failed is noted in the store.
    """
    attempts: Counter[tuple[int, Need]] = Counter()
    while True:
        needs = ledger.needs()
        on_scan(needs)
        failed = [ledger.store.failure(ledger.end(path)) for path in ledger.paths]
        ready = [(i, need) for i, need in enumerate(needs) if need and need.ready and not failed[i]]
        if not ready or (fail_fast and any(failed)):
            return
        index, need = ready[0]
        path = ledger.paths[index]
        attempts[index, need] += 1
        try:
            if attempts[index, need] > 3:
                raise RuntimeError(
                    f"steps {need.start} to {need.stop} were trained three times and are not in the store"
                )
            train(Work(path.run, need.start, need.stop, ledger.save_at(index, need), ledger.observe_at(index, need)))
        except DamagedFile as error:
            logger.warning("%s; it is trained again from the nearest state before it", error)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            logger.error("run %s failed: %s", path.run.run_id, error)
            logger.debug("where it failed", exc_info=True)
            ledger.store.fail(ledger.end(path), f"{type(error).__name__}: {error}".splitlines()[0])


def why_failed(ledger: Ledger) -> dict[str, str]:
    """For each run that cannot be finished because a path on its way failed: the reason, by run_id."""
    reasons: dict[str, str] = {}
    for index, path in enumerate(ledger.paths):
        on_the_way: int | None = index
        reason = None
        while on_the_way is not None and reason is None:
            reason = ledger.store.failure(ledger.end(ledger.paths[on_the_way]))
            on_the_way = ledger.parents[on_the_way]
        if reason:
            reasons |= {ledger.runs[run].run_id: reason for node in path.nodes for run in node.runs}
    return reasons
