"""What is done of a study and what is not: its paths, read against the store by one look at each of its folders."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from replay_sweeps.models.flops import flops_per_token
from replay_sweeps.store.states import Failure, Store
from replay_sweeps.tree.paths import TreePath
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.prefix_tree import Node, heavy_paths, prefix_tree
from replay_sweeps.tree.state_name import StateName, observation_name

Keep = Literal["leaves", "all", "none"]
SKIPPED = "skipped, since steps before it failed: "


@dataclass(frozen=True)
class Need:
    """What the store lacks of a path: from the state at `start` to `stop`; `ready` when training can begin."""

    start: int
    stop: int
    ready: bool
    save: frozenset[int]  # steps whose states others wait for


class _Seen:
    """The names that the store's folders held when they were last looked at."""

    def __init__(self, store: Store, trees: Sequence[str]) -> None:
        self.states, self.records, self.observations, self.failures = (
            {tree: store.names(kind, tree) for tree in trees}
            for kind in ("states", "records", "observations", "failures")
        )


class Ledger:
    """The paths of a study and what the store has of each; remembers what was read, since nothing there changes."""

    def __init__(self, runs: Sequence[PlannedRun], store: Store) -> None:
        self.runs, self.store = runs, store
        roots = prefix_tree(runs)
        self.paths = [TreePath(tuple(nodes), runs[nodes[-1].run]) for nodes in heavy_paths(roots)]
        holder = {id(node): index for index, path in enumerate(self.paths) for node in path.nodes}
        self.parents: list[int | None] = [  # the path that each path branches off from
            holder[id(path.nodes[0].parent)] if path.nodes[0].parent else None for path in self.paths
        ]
        self.branches: list[dict[int, list[int]]] = [{} for _ in self.paths]  # step: paths that branch off there
        for index, (path, parent) in enumerate(zip(self.paths, self.parents, strict=True)):
            if parent is not None:
                self.branches[parent].setdefault(path.start, []).append(index)
        self.observed: dict[int, dict[int, set[str]]] = {}
        for path in self.paths:
            for node in path.nodes:
                for run in node.runs:
                    self._place_observations(runs[run], node, holder)
        self._of_tree: dict[str, list[int]] = {}
        for index, path in enumerate(self.paths):
            self._of_tree.setdefault(path.run.root[:16], []).append(index)
        self._keys: dict[tuple[int, int], str] = {}  # by path index and step
        self._known: set[str] = set()  # observations that were read and found sound
        self._parent_step: dict[str, int] = {}  # of the stretch that ends in a state, by the state's path
        self._owner: dict[str, tuple[int, int]] = {}  # path index and step of a kept state, by the state's path
        self._indexed: set[tuple[str, int]] = set()
        self._seen: _Seen | None = None

    def _place_observations(self, run: PlannedRun, end: Node, holder: Mapping[int, int]) -> None:
        nodes = list(end.chain())[::-1]
        for observation in run.observations:
            at_or_after = bisect_right(nodes, observation.step - 1, key=lambda node: node.start)
            at = self.observed.setdefault(holder[id(nodes[max(0, at_or_after - 1)])], {})
            at.setdefault(observation.step, set()).add(observation.store)

    def state(self, index: int, step: int) -> StateName:
        """The name of a path's state."""
        path = self.paths[index]
        if (index, step) not in self._keys:
            self._keys[index, step] = path.run.key(step)
        return StateName(path.run.root, step, self._keys[index, step])

    def end(self, index: int) -> StateName:
        """The last state of a path."""
        return self.state(index, self.paths[index].stop)

    def lease_name(self, index: int) -> str:
        """What a worker claims: the first step that is this path's own, the same in every study that has it."""
        state = self.state(index, self.paths[index].start + 1)
        return f"{state.tree}-{state.name}"

    def look(self) -> None:
        """Look at the store anew."""
        self._seen = _Seen(self.store, list(self._of_tree))
        for tree, names in self._seen.states.items():
            for name in names:
                digits = name.partition("-")[0]
                if digits.isdigit() and (tree, int(digits)) not in self._indexed:
                    self._index(tree, int(digits))

    def _index(self, tree: str, step: int) -> None:
        """Name the states of all paths that pass a step, so that kept ones are found by name."""
        self._indexed.add((tree, step))
        for index in self._of_tree[tree]:
            if self.paths[index].start < step <= self.paths[index].stop:
                self._owner[self.state(index, step).path] = (index, step)

    @property
    def seen(self) -> _Seen:
        """What the last look found."""
        if self._seen is None:
            self.look()
        assert self._seen
        return self._seen

    def _kept(self) -> list[list[int]]:
        """For each path the steps of its states that are kept, ascending, those of its start not among them."""
        kept: list[list[int]] = [[] for _ in self.paths]
        for tree, names in self.seen.states.items():
            for name in names:
                owner = self._owner.get(f"{tree}/{name}")
                if owner:
                    kept[owner[0]].append(owner[1])
        for steps in kept:
            steps.sort()
        return kept

    def is_resumable(self, index: int, step: int) -> bool:
        """Whether training can go on from a path's state."""
        state = self.state(index, step)
        return state.name in self.seen.states[state.tree] and self.store.is_kept(state)

    def is_observed(self, state: StateName, store: str) -> bool:
        """Whether the state's loss on a validation store is known."""
        name = observation_name(state, store)
        if name not in self._known:
            if name not in self.seen.observations[state.tree] or self.store.observation(state, store) is None:
                return False
            self._known.add(name)
        return True

    def _came_from(self, state: StateName) -> int | None:
        """The step at which the stretch that ends in a state begins, if the store knows it."""
        if state.path not in self._parent_step:
            if state.name not in self.seen.records[state.tree]:
                return None
            found = self.store.segment_record(state)
            if found is None:
                return None
            self._parent_step[state.path] = found.parent_step
        return self._parent_step[state.path]

    def broken_at(self, index: int, stop: int) -> int | None:
        """The latest step up to which the chain of stretches that leads to a state is missing; None if it is whole."""
        while stop > 0:
            before = self._came_from(self.state(index, stop))
            if before is None:
                return stop
            stop = before
        return None

    def needs(self) -> list[Need | None]:
        """For each path what is to be trained of it next, or None where all is done; looks at the store."""
        self.look()
        kept = self._kept()
        wanted: list[set[int]] = [set() for _ in self.paths]  # states of a path that another path waits for
        needs: list[Need | None] = [None] * len(self.paths)
        for index in reversed(range(len(self.paths))):
            for node in self.paths[index].nodes:
                broken = self.broken_at(index, node.stop) if node.runs else None
                if broken is not None:
                    wanted[self._holder(index, broken)].add(broken)
            needs[index] = self._need(index, wanted, kept[index])
        return needs

    def _need(self, index: int, wanted: list[set[int]], kept: Sequence[int]) -> Need | None:
        path = self.paths[index]
        unobserved = set(self._unobserved(index))
        for step in unobserved:
            if step in kept and self.store.has_weights(self.state(index, step)):
                return Need(step, step, True, frozenset())
        steps = wanted[index] | unobserved
        if not steps:
            return None
        first = min(steps)
        before = [*([path.start] if path.start else []), *(step for step in kept if step <= first)]
        start = next((step for step in reversed(before) if self.is_resumable(index, step)), None)
        ready = start is not None or path.start == 0
        if start is None:
            start = path.start
            if start:
                wanted[self._holder(index, start)].add(start)
        ahead = next((step for step in kept if step > first and self.is_resumable(index, step)), None)
        stop = max(step for step in steps if ahead is None or step <= ahead)
        return Need(start, stop, ready, frozenset(wanted[index]))

    def _holder(self, index: int, step: int) -> int:
        """The path among this one and its ancestors in which the state after `step` is made."""
        while step <= self.paths[index].start and self.parents[index] is not None:
            index = self.parents[index]  # type: ignore[assignment]
        return index

    def _unobserved(self, index: int) -> Iterator[int]:
        """The steps of a path at which a validation loss is missing."""
        for step, stores in self.observed.get(index, {}).items():
            state = self.state(index, step)
            if not all(self.is_observed(state, store) for store in stores):
                yield step

    def failed(self, index: int) -> Failure | None:
        """Why a path failed, or None."""
        end = self.end(index)
        return self.store.failure(end) if end.name in self.seen.failures[end.tree] else None

    def progress(self, needs: Sequence[Need | None]) -> tuple[int, int]:
        """How many runs are done, and how many steps are left."""
        return len(self.done(needs)), sum(need.stop - need.start for need in needs if need)

    def done(self, needs: Sequence[Need | None]) -> set[int]:
        """The runs of which nothing is missing."""
        return {
            run
            for index, (path, need) in enumerate(zip(self.paths, needs, strict=True))
            for node in path.nodes
            for run in node.runs
            if need is None or self._is_done(index, node, run)
        }

    def _is_done(self, index: int, end: Node, run: int) -> bool:
        """Whether nothing of a run is missing, though of its path something may be that others wait for."""
        if self.broken_at(index, end.stop) is not None:
            return False
        planned = self.runs[run]
        states = ((StateName(planned.root, item.step, planned.key(item.step)), item) for item in planned.observations)
        return all(self.is_observed(state, item.store) for state, item in states)

    def cost(self, index: int, need: Need) -> float:
        """Operations of what a need begins: since a path is the longest chain from its head, its critical path."""
        config = self.paths[index].run.config
        vocabulary = config.model.tokenizer.vocab_size or 32_768
        tokens = (need.stop - need.start) * config.trainer.tokens_per_step
        return tokens * flops_per_token(config.model, vocabulary, config.trainer.row_length)

    def save_at(self, index: int, need: Need) -> dict[int, bool]:
        """The steps of a need at which a state is saved, and whether training must be able to go on from it."""
        path = self.paths[index]
        saved = {node.stop: False for node in path.nodes if node.runs}
        saved |= dict.fromkeys((*self.branches[index], *need.save, *path.waypoints()), True)
        return {step: resumable for step, resumable in saved.items() if need.start < step <= need.stop}

    def observe_at(self, index: int, need: Need) -> dict[int, frozenset[str]]:
        """The validation losses that are missing within a need."""
        found = {}
        for step, stores in self.observed.get(index, {}).items():
            if need.start <= step <= need.stop:
                state = self.state(index, step)
                missing = frozenset(store for store in stores if not self.is_observed(state, store))
                if missing:
                    found[step] = missing
        return found

    def spent(self, needs: Sequence[Need | None], keep: Keep) -> Iterator[StateName]:
        """The kept states that nothing waits for any more, where only `leaves` (and waypoints) or `none` are kept."""
        for index, steps in enumerate(self._kept() if keep != "all" else ()):
            path, need, waypoints = self.paths[index], needs[index], self.paths[index].waypoints()
            ends = {node.stop for node in path.nodes if node.runs}
            branches = self.branches[index]
            waiting = max((step for step, paths in branches.items() if any(needs[p] for p in paths)), default=0)
            for step in steps:
                if (need and step >= need.start) or any(needs[branch] for branch in branches.get(step, ())):
                    continue
                stays = step in ends or step in waypoints
                if not (stays and keep == "leaves") and not (step in waypoints and step < waiting):
                    yield self.state(index, step)


def why_failed(ledger: Ledger) -> dict[str, Failure]:
    """For each run that cannot be finished because a path on its way failed: why, by run_id."""
    found: dict[int, Failure] = {}
    reasons: dict[str, Failure] = {}
    for index, path in enumerate(ledger.paths):  # parents come before children
        parent = ledger.parents[index]
        failure = ledger.failed(index)
        if failure is None and parent in found and not ledger.is_resumable(index, path.start):
            failure = Failure(f"{SKIPPED}{found[parent].reason.removeprefix(SKIPPED)}", found[parent].log)
        if failure:
            found[index] = failure
            reasons |= {ledger.runs[run].run_id: failure for node in path.nodes for run in node.runs}
    return reasons
