"""The paths of a prefix tree, each trained in one go, and the segments of steps that are trained."""

from collections.abc import Mapping
from dataclasses import dataclass

from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.prefix_tree import Node
from replay_sweeps.tree.state_name import StateName


@dataclass(frozen=True)
class TreePath:
    """Nodes trained in one go. `run` passes through all of them, so its behaviour is that of the path."""

    nodes: tuple[Node, ...]
    run: PlannedRun

    @property
    def start(self) -> int:
        return self.nodes[0].start

    @property
    def stop(self) -> int:
        return self.nodes[-1].stop

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
    """A stretch to train: from the kept state at `start` (0: the initial weights) to `stop`."""

    run: PlannedRun
    start: int
    stop: int
    save_at: Mapping[int, bool]  # step: whether training must be able to go on from there
    observe_at: Mapping[int, frozenset[str]]  # step: fingerprints of the validation stores

    def state(self, step: int) -> StateName:
        """The name of the run's state after `step` steps."""
        return StateName(self.run.root, step, self.run.key(step))
