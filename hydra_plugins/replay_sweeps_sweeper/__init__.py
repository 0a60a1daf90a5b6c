"""Makes Hydra find the sweeper. Every start of Hydra imports this: it stays light."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from replay_sweeps.workers.sweeper import PrefixTreeSweeper as _PrefixTreeSweeper


class PrefixTreeSweeper(_PrefixTreeSweeper):
    """The sweeper of `replay_sweeps.workers.sweeper`, in a module where Hydra looks for plugins."""


@dataclass
class PrefixTreeSettings:
    """`hydra.sweeper`: the grid of a study as a union of products."""

    _target_: str = "hydra_plugins.replay_sweeps_sweeper.PrefixTreeSweeper"
    grids: list[Any] = field(default_factory=list)


ConfigStore.instance().store(
    group="hydra/sweeper", name="prefix_tree", node=PrefixTreeSettings, provider="replay_sweeps"
)
