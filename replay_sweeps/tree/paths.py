"""What there is to do in a study: the paths of its prefix tree, and the segments of steps that are trained.

A path is a chain of nodes that is trained in one go. Three runs that part at the steps 40 and 60 make three paths:

    step 0              40        60              100
         ├──────────────┼─────────┼───────────────┤   path 0 (the trunk): ends where a run ends
                        │         └───────────────┤   path 1: begins with the state of path 0 at step 60
                        └─────────────────────────┤   path 2: begins with the state of path 0 at step 40
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.prefix_tree import Node, heavy_paths, prefix_tree
from replay_sweeps.tree.state_name import StateName


@dataclass(frozen=True)
class TreePath:
    """Nodes that are trained in one go. `run` passes through all of them, so its behaviour is that of the path."""

    nodes: tuple[Node, ...]
    run: PlannedRun

    @property
    def start(self) -> int:
        return self.nodes[0].start

    @property
    def stop(self) -> int:
        return self.nodes[-1].stop

    def run_ends(self) -> set[int]:
        """The steps at which runs end."""
        return {node.stop for node in self.nodes if node.runs}

    def waypoints(self) -> range:
        """Steps of the trunk whose states are kept, so that a value added later branches near one."""
        every = self.run.config.trainer.waypoints and max(1, self.run.steps // self.run.config.trainer.waypoints)
        trunk = next(
            (piece.start for piece in self.run.behaviour.pieces if any(mix.target for mix in piece.mixes)),
            self.run.steps,
        )
        return range(every, trunk, every) if every else range(0)


@dataclass(frozen=True)
class Segment:
    """Steps that one call trains: from the kept state at `start` (0: the initial weights) to `stop`."""

    run: PlannedRun
    start: int
    stop: int
    save_at: Mapping[int, bool]  # step: whether training must be able to go on from there
    observe_at: Mapping[int, frozenset[str]]  # step: fingerprints of the validation stores

    def state(self, step: int) -> StateName:
        """The name of the run's state after `step` steps."""
        return StateName(self.run.root, step, self.run.key(step))


class StudyTree:
    """The runs of a study as paths, parents before children. It knows nothing of what is trained already."""

    def __init__(self, runs: tuple[PlannedRun, ...]) -> None:
        self.runs = runs
        self._keys: dict[tuple[int, int], str] = {}  # cached by path and step: a large grid computes many
        self.paths = [TreePath(tuple(nodes), runs[nodes[-1].run]) for nodes in heavy_paths(prefix_tree(runs))]
        path_of = {id(node): index for index, path in enumerate(self.paths) for node in path.nodes}
        self.parents: list[int | None] = [  # the path that each path branches off from
            path_of[id(path.nodes[0].parent)] if path.nodes[0].parent else None for path in self.paths
        ]
        self.branches: list[dict[int, list[int]]] = [{} for _ in self.paths]  # step: paths that branch off there
        for index, (path, parent) in enumerate(zip(self.paths, self.parents, strict=True)):
            if parent is not None:
                self.branches[parent].setdefault(path.start, []).append(index)
        self.observed: list[dict[int, set[str]]] = [{} for _ in self.paths]  # step: validation stores
        for path in self.paths:
            for node in path.nodes:
                for run in node.runs:
                    self._place_observations(runs[run], node, path_of)
        self.by_tree: dict[str, list[int]] = {}  # the paths below each root, by the folder of their states
        for index in range(len(self.paths)):
            self.by_tree.setdefault(self.end(index).tree, []).append(index)

    def _place_observations(self, run: PlannedRun, end: Node, path_of: Mapping[int, int]) -> None:
        """Note each observation of a run at the path in which its state is made."""
        nodes = list(end.chain())[::-1]
        for observation in run.observations:
            at_or_after = bisect_right(nodes, observation.step - 1, key=lambda node: node.start)
            path = path_of[id(nodes[max(0, at_or_after - 1)])]
            self.observed[path].setdefault(observation.step, set()).add(observation.store)

    def state(self, index: int, step: int) -> StateName:
        """The name of a path's state."""
        run = self.paths[index].run
        if (index, step) not in self._keys:
            self._keys[index, step] = run.key(step)
        return StateName(run.root, step, self._keys[index, step])

    def end(self, index: int) -> StateName:
        """The last state of a path."""
        return self.state(index, self.paths[index].stop)

    def lease_name(self, index: int) -> str:
        """What a worker leases: the first step that is this path's own, the same in every study that has it."""
        state = self.state(index, self.paths[index].start + 1)
        return f"{state.tree}-{state.name}"

    def path_that_makes(self, index: int, step: int) -> int:
        """The path, among this one and those it branches off from, in which the state after `step` is made."""
        while step <= self.paths[index].start and (parent := self.parents[index]) is not None:
            index = parent
        return index

    def save_at(self, index: int, start: int, stop: int, wanted: frozenset[int] = frozenset()) -> dict[int, bool]:
        """The steps in (start, stop] at which a path's state is saved, and whether training must go on from it.

        Saved are the ends of runs, the states from which other paths branch off, waypoints, and those `wanted` besides.
        """
        path = self.paths[index]
        saved = dict.fromkeys(path.run_ends(), False)
        saved |= dict.fromkeys((*self.branches[index], *wanted, *path.waypoints()), True)
        return {step: resumable for step, resumable in saved.items() if start < step <= stop}
