"""What is done of a study and what is missing: its tree, compared with the store; each folder is listed once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from replay_sweeps.store.states import Failure, Store
from replay_sweeps.tree.paths import Segment, StudyTree
from replay_sweeps.tree.prefix_tree import Node
from replay_sweeps.tree.state_name import ShortStateName, StateName, observation_name

SKIPPED = "skipped, since steps before it failed: "


@dataclass(frozen=True)
class MissingWork:
    """What the store lacks of a path: from the state at `start` to `stop`; `ready` when training can begin."""

    start: int
    stop: int
    ready: bool
    wanted: frozenset[int] = frozenset()  # steps whose states other paths wait for


Missing = Sequence[MissingWork | None]  # for each path what is missing of it, None where all is done


class _Listing:
    """The names that the store's folders held when they were last looked at."""

    def __init__(self, store: Store, trees: Sequence[str]) -> None:
        self.states, self.records, self.observations, self.failures = (
            {tree: store.names(kind, tree) for tree in trees}
            for kind in ("states", "records", "observations", "failures")
        )


class StudyStatus:
    """What the store has of each path of a tree; remembers losses and parents, which are never rewritten."""

    def __init__(self, tree: StudyTree, store: Store) -> None:
        self.tree, self.store = tree, store
        self._sound: set[str] = set()  # observations that were read and found sound
        self._parent_step: dict[str, int] = {}  # of the segment that ends in a state, by the state's path
        self._place: dict[str, tuple[int, int]] = {}  # path index and step of a state, by the state's path
        self._indexed: set[tuple[str, int]] = set()
        self._listing: _Listing | None = None

    def refresh(self) -> None:
        """Look at the store anew."""
        self._listing = _Listing(self.store, list(self.tree.by_tree))
        for tree, names in self._listing.states.items():
            for name in names:
                state = ShortStateName.parse(f"{tree}/{name}")
                if state and (tree, state.step) not in self._indexed:
                    self._index(tree, state.step)

    def _index(self, tree: str, step: int) -> None:
        """Name the states of all paths that pass a step, so that kept ones are found by name."""
        self._indexed.add((tree, step))
        for index in self.tree.by_tree[tree]:
            if self.tree.paths[index].start < step <= self.tree.paths[index].stop:
                self._place[self.tree.state(index, step).path] = (index, step)

    @property
    def listing(self) -> _Listing:
        """What the last look found."""
        if self._listing is None:
            self.refresh()
        assert self._listing
        return self._listing

    def kept(self) -> list[list[int]]:
        """For each path the steps of its states that are kept, ascending; not the state that it begins with."""
        kept: list[list[int]] = [[] for _ in self.tree.paths]
        for tree, names in self.listing.states.items():
            for name in names:
                place = self._place.get(f"{tree}/{name}")
                if place:
                    kept[place[0]].append(place[1])
        for steps in kept:
            steps.sort()
        return kept

    def is_resumable(self, index: int, step: int) -> bool:
        """Whether training can go on from a path's state."""
        state = self.tree.state(index, step)
        return state.name in self.listing.states[state.tree] and self.store.is_resumable(state)

    def is_observed(self, state: StateName, store: str) -> bool:
        """Whether the state's loss on the validation store with this fingerprint is known."""
        name = observation_name(state, store)
        if name not in self._sound:
            if name not in self.listing.observations[state.tree] or self.store.observation(state, store) is None:
                return False
            self._sound.add(name)
        return True

    def _came_from(self, state: StateName) -> int | None:
        """The step at which the segment that ends in a state begins, if the store knows it."""
        if state.path not in self._parent_step:
            if state.name not in self.listing.records[state.tree]:
                return None
            record = self.store.segment_record(state)
            if record is None:
                return None
            self._parent_step[state.path] = record.parent_step
        return self._parent_step[state.path]

    def broken_at(self, index: int, stop: int) -> int | None:
        """The step of the first missing record, going back from `stop`; None if the chain of segments is whole."""
        while stop > 0:
            before = self._came_from(self.tree.state(index, stop))
            if before is None:
                return stop
            stop = before
        return None

    def missing(self) -> Missing:
        """For each path what is to be trained of it next, or None where all is done; looks at the store.

        Children are looked at before their parents: where a child lacks the state that it begins with, its parent is
        asked for that state.
        """
        self.refresh()
        kept = self.kept()
        wanted: list[set[int]] = [set() for _ in self.tree.paths]  # states of a path that another path waits for
        missing: list[MissingWork | None] = [None] * len(self.tree.paths)
        for index in reversed(range(len(self.tree.paths))):
            for node in self.tree.paths[index].nodes:
                broken = self.broken_at(index, node.stop) if node.runs else None
                if broken is not None:
                    wanted[self.tree.path_that_makes(index, broken)].add(broken)
            missing[index] = self._missing_of(index, wanted, kept[index])
        return missing

    def _missing_of(self, index: int, wanted: list[set[int]], kept: Sequence[int]) -> MissingWork | None:
        """What is missing of one path; a state that its parent must make again is added to `wanted`.

            path.start           first                    ahead
               ●────────●──────────┬──────────┬─────────────●──────────┤     ● a state that is kept
                        │          state or loss that is    │
                        start      missing (all: `steps`)   from here on the state `ahead` will do
                        └────────── trained now ──────┤
                                                      stop: the last of `steps` before `ahead`

        Training begins at the last kept state before the first step where anything is missing.
        """
        path = self.tree.paths[index]
        unobserved = set(self._unobserved(index))
        for step in unobserved:
            if step in kept and self.store.has_weights(self.tree.state(index, step)):
                return MissingWork(step, step, ready=True)  # nothing to train: a kept state is validated
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
                wanted[self.tree.path_that_makes(index, start)].add(start)
        ahead = next((step for step in kept if step > first and self.is_resumable(index, step)), None)
        stop = max(step for step in steps if ahead is None or step <= ahead)
        return MissingWork(start, stop, ready, frozenset(wanted[index]))

    def _unobserved(self, index: int) -> Iterator[int]:
        """The steps of a path at which a validation loss is missing."""
        for step, stores in self.tree.observed[index].items():
            state = self.tree.state(index, step)
            if not all(self.is_observed(state, store) for store in stores):
                yield step

    def segment(self, index: int, missing: MissingWork) -> Segment:
        """What is missing of a path as a segment to train: the states to save, the losses to take."""
        observe_at = {}
        for step, stores in self.tree.observed[index].items():
            if missing.start <= step <= missing.stop:
                state = self.tree.state(index, step)
                lacking = frozenset(store for store in stores if not self.is_observed(state, store))
                if lacking:
                    observe_at[step] = lacking
        save_at = self.tree.save_at(index, missing.start, missing.stop, missing.wanted)
        return Segment(self.tree.paths[index].run, missing.start, missing.stop, save_at, observe_at)

    def failed(self, index: int) -> Failure | None:
        """Why a path failed, or None."""
        end = self.tree.end(index)
        return self.store.failure(end) if end.name in self.listing.failures[end.tree] else None

    def progress(self, missing: Missing) -> tuple[int, int]:
        """How many runs are done, and how many steps are left."""
        return len(self.done(missing)), sum(work.stop - work.start for work in missing if work)

    def done(self, missing: Missing) -> set[int]:
        """The runs of which nothing is missing."""
        return {
            run
            for index, (path, work) in enumerate(zip(self.tree.paths, missing, strict=True))
            for node in path.nodes
            for run in node.runs
            if work is None or self._is_done(index, node, run)
        }

    def _is_done(self, index: int, end: Node, run: int) -> bool:
        """Whether the run itself is complete. Other runs may still need states of its path."""
        if self.broken_at(index, end.stop) is not None:
            return False
        planned = self.tree.runs[run]
        states = ((StateName(planned.root, item.step, planned.key(item.step)), item) for item in planned.observations)
        return all(self.is_observed(state, item.store) for state, item in states)

    def why_failed(self) -> dict[str, Failure]:
        """For each run that cannot be finished because a path on its way failed: why, by run_id."""
        found: dict[int, Failure] = {}
        reasons: dict[str, Failure] = {}
        for index, path in enumerate(self.tree.paths):  # parents come before children
            parent = self.tree.parents[index]
            failure = self.failed(index)
            if failure is None and parent in found and not self.is_resumable(index, path.start):
                failure = Failure(f"{SKIPPED}{found[parent].reason.removeprefix(SKIPPED)}", found[parent].log)
            if failure:
                found[index] = failure
                reasons |= {self.tree.runs[run].run_id: failure for node in path.nodes for run in node.runs}
        return reasons
