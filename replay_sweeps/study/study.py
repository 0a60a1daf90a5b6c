"""From a command to the runs of a study: every cell of its grid composed, and all of it checked."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra

from replay_sweeps.config import RunConfig
from replay_sweeps.data.sources import self_generated
from replay_sweeps.errors import UserError
from replay_sweeps.models.pretrained import with_pretrained_shape
from replay_sweeps.models.pretrained_checks import check_pretrained
from replay_sweeps.study.checks import Problem, check_launcher, check_run
from replay_sweeps.study.command import Command, config_folder
from replay_sweeps.study.composer import Cell, Composer, grids_of, product, register_resolvers
from replay_sweeps.study.resource_checks import Need, needs

MOST_CELLS = 100_000  # of a grid


@dataclass(frozen=True)
class Study:
    """The distinct runs of a grid, and what a reader should know of how they came about."""

    name: str
    title: str
    runs: tuple[RunConfig, ...]
    axes: tuple[str, ...]  # settings that the grid sweeps
    altered: tuple[dict[str, Any], ...]  # what `+scale=` changed: setting, from, to
    command: str
    output: Path
    store: Path
    analyze: bool
    logger: Any
    in_process: bool  # whether the one worker is the command itself
    elsewhere: bool  # whether the launcher's workers may train on other machines
    grids: Mapping[RunConfig, int]  # which of the study's grids each run is in, the first where it is in several
    budget: Mapping[str, Any] | None = None  # what was decided where a budget was given: see `plan.decision`

    @property
    def workers(self) -> int:
        """How many workers there are at most."""
        return 1 if self.in_process else self.runs[0].workers or os.cpu_count() or 1

    def grid_of(self, run: RunConfig) -> int:
        """Which of the study's grids a run is in, also once its N was counted from a share."""
        if run.schedule.target_share is not None:
            run = replace(run, schedule=replace(run.schedule, target_tokens=None))
        return self.grids[run]


@contextmanager
def hydra_loader() -> Iterator[ConfigLoader]:
    """Hydra's loader over `conf/`, outside of a Hydra application."""
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def resolve_study(command: Command, loader: ConfigLoader) -> Study:
    """Compose the configuration of every run of the command's grid, and check all of it.

    Raises UserError with one line for each problem; nothing is written.
    """
    composer = Composer(command, loader)
    launcher = composer.base.hydra.launcher
    grids = grids_of(composer.base, command)
    size = sum(math.prod(map(len, grid.values())) for grid in grids)
    if size > MOST_CELLS:
        raise UserError(f"the grid has {size:,} cells, more than {MOST_CELLS:,}: sweep over fewer values")
    cells = [(number, cell) for number, grid in enumerate(grids) for cell in product(grid)]
    runs = _checked_runs(composer, cells)
    first = next(iter(runs))
    output, store = folders(first)
    return Study(
        name=first.study.name,
        title=first.study.title,
        runs=tuple(runs),
        axes=tuple(dict.fromkeys(name for _, cell in cells for name in cell)),
        altered=tuple(composer.altered()),
        command=str(command),
        output=output,
        store=store,
        analyze=first.study.analyze,
        logger=first.logger,
        in_process=launcher._target_.endswith(".BasicLauncher"),
        elsewhere=launcher._target_.endswith((".SlurmLauncher", ".RayLauncher")),
        grids=runs,
    )


def _checked_runs(composer: Composer, cells: Iterable[tuple[int, Cell]]) -> dict[RunConfig, int]:
    """The distinct runs of (grid, cell) pairs, each with its grid; UserError with the problems of all cells."""
    launcher = composer.base.hydra.launcher
    runs: dict[RunConfig, int] = {}
    lines: dict[str, None] = {}  # of problems, in order and without repetition
    needed: dict[Need, Cell] = {}  # what runs need around them, each with the first cell that needs it
    for number, cell in cells:
        run, problems = _run_of(composer, cell)
        if run is not None and not problems:
            runs.setdefault(run, number)
            problems = check_run(run)
            if run.plan == "false":
                problems += check_launcher(run.trainer, launcher.get("tasks_per_node", 1), launcher.get("nodes", 1))
        lines |= dict.fromkeys(composer.line(name, message, cell) for name, message in problems)
        if run is not None and not any(name.endswith(".path") for name, _ in problems):
            for need in needs(run):
                needed.setdefault(need, cell)
    for (check, about), cell in needed.items():
        lines |= dict.fromkeys(composer.line(name, message, cell) for name, message in check(*about))
    if lines:
        raise UserError(*lines)
    return runs


def _run_of(composer: Composer, cell: Cell) -> tuple[RunConfig | None, list[Problem]]:
    """The run of a cell, with what it takes from a pretrained model: its shape, and the model that samples text."""
    run, problems = composer.run(cell)
    if run is None:
        return None, problems
    if not problems and run.model.path is not None:
        problems = [*check_pretrained(run.model)]
        if not problems:
            run = replace(run, model=with_pretrained_shape(run.model))
    if run.generic.kind == self_generated.KIND and run.generic.path is None:
        run = replace(run, generic=replace(run.generic, path=run.model.path, revision=run.model.revision))
    return run, problems


def folders(run: RunConfig) -> tuple[Path, Path]:
    """Where a study writes and where its states live (`paths.output`, `paths.store`)."""
    output = Path(run.paths.output or f"outputs/{run.study.name}")
    if run.paths.store:
        return output, Path(run.paths.store)
    return output, output / "store" if run.paths.output else Path("outputs/store")
