"""The Hydra sweeper: a shell around `run_study`, which it gives the configured launcher."""

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from replay_sweeps.errors import UserError

if TYPE_CHECKING:  # every start of Hydra imports this module: it stays light
    from replay_sweeps.study.command import Command
    from replay_sweeps.study.study import Study

_handed_over: ContextVar["tuple[Command, Study] | None"] = ContextVar("study", default=None)


@contextmanager
def study_handed_over(command: "Command", study: "Study") -> Iterator[None]:
    """The study that the sweeper runs inside this block. It was resolved before Hydra was entered, and is once only."""
    token = _handed_over.set((command, study))
    try:
        yield
    finally:
        _handed_over.reset(token)


class PrefixTreeSweeper(Sweeper):
    """Trains each distinct segment of a grid once, with workers started through the configured launcher."""

    def __init__(self, grids: Any) -> None:  # `grids` are read from the configuration, before Hydra is entered
        self.config: DictConfig | None = None
        self.context: Any = None
        self.task: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config, self.context, self.task = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Run the study that was handed over; `arguments` are its overrides once more."""
        from replay_sweeps.workers.run_study import run_study

        handed_over = _handed_over.get()
        if handed_over is None:
            raise UserError("the sweeper prefix_tree runs studies of the command replay-sweep; start it with that")
        command, study = handed_over
        launcher = functools.cache(lambda: self._launcher(study.output, study.workers))  # made when it is needed

        def launch(file: Path, workers: int) -> Sequence[Any]:
            returned: Sequence[Any] = launcher().launch([worker_job(command.fixed, file)] * workers, initial_job_idx=0)
            return returned

        run_study(study, launch)

    def _launcher(self, output: Path, workers: int) -> Any:
        """The configured launcher, told where the study writes and how many workers there are at most."""
        assert self.config
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(output.absolute())
            self.config.workers = workers
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=self.config
        )


def worker_job(fixed: Sequence[str], file: Path) -> list[str]:
    """The overrides of a launcher's job: a worker that does what a file tells."""
    return [*(item for item in fixed if not item.startswith("hydra")), f"+worker={quoted(str(file.absolute()))}"]


def quoted(value: str) -> str:
    """A text as Hydra's overrides take it, whatever is in it."""
    return "'" + re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'") + "'"
