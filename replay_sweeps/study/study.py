"""From a command to the runs of a study: every cell of its grid composed, and all of it checked."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra

from replay_sweeps.config import RunConfig
from replay_sweeps.data.chat_template import check_chat_template
from replay_sweeps.data.sources import self_generated
from replay_sweeps.data.sources.documents import check_source
from replay_sweeps.data.tokenizers import check_template_file
from replay_sweeps.errors import UserError
from replay_sweeps.models.pretrained import with_pretrained_shape
from replay_sweeps.models.pretrained_checks import check_pretrained
from replay_sweeps.study.checks import check_launcher, check_run, unwritable
from replay_sweeps.study.command import Command, config_folder
from replay_sweeps.study.composer import Cell, Composer, grids_of, product


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
    budget: Mapping[str, Any] | None = None  # what was decided where a budget was given: see `sweep.within`

    @property
    def workers(self) -> int:
        """How many workers there are at most."""
        return 1 if self.in_process else self.runs[0].workers or os.cpu_count() or 1

    def grid_of(self, run: RunConfig) -> int:
        """Which of the study's grids a run is in, also once its N was counted from a share."""
        if run.schedule.target_share is not None:
            run = dataclasses.replace(run, schedule=dataclasses.replace(run.schedule, target_tokens=None))
        return self.grids[run]


@contextmanager
def hydra_loader() -> Iterator[ConfigLoader]:
    """Hydra's loader over `conf/`, outside of a Hydra application."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def resolve_study(command: Command, loader: ConfigLoader) -> Study:
    """Compose the configuration of every run of the command's grid, and check all of it.

    Raises UserError with one line for each problem; nothing is written.
    """
    composer = Composer(command, loader)
    launcher = composer.base.hydra.launcher
    grids = grids_of(composer.base, command)
    cells = [(number, cell) for number, grid in enumerate(grids) for cell in product(grid)]
    runs: dict[RunConfig, int] = {}  # each with its grid
    problems: dict[str, None] = {}
    checked: dict[tuple[Any, ...], Cell] = {}
    for number, cell in cells:
        run, wrong = composer.run(cell)
        if run is not None and not wrong and run.model.path is not None:
            wrong = [*check_pretrained(run.model)]
            if not wrong:
                run = dataclasses.replace(run, model=with_pretrained_shape(run.model))
        if run is not None and run.generic.kind == self_generated.KIND and run.generic.path is None:
            sampled = dataclasses.replace(run.generic, path=run.model.path, revision=run.model.revision)
            run = dataclasses.replace(run, generic=sampled)
        if run is not None and not wrong:
            runs.setdefault(run, number)
            wrong = [*check_run(run)]
            if run.plan == "false":
                wrong += check_launcher(run.trainer, launcher.get("tasks_per_node", 1), launcher.get("nodes", 1))
        problems |= dict.fromkeys(composer.line(name, message, cell) for name, message in wrong)
        if run is not None and not any(name.endswith(".path") for name, _ in wrong):
            for subject in (
                ("target", run.target),
                ("generic", run.generic),
                ("tokenizer", run.model.tokenizer, "chat" in (run.target.format, run.generic.format)),
                ("paths", run.paths, run.study, run.plan),
            ):
                checked.setdefault(subject, cell)
    for (role, *about), cell in checked.items():
        problems |= dict.fromkeys(composer.line(*problem, cell) for problem in _surroundings(role, about))
    if problems:
        raise UserError(*problems)
    first = next(iter(runs))
    output, store = folders(first)
    axes = dict.fromkeys(name for _, cell in cells for name in cell)
    return Study(
        name=first.study.name,
        title=first.study.title,
        runs=tuple(runs),
        axes=tuple(axes),
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


def folders(run: RunConfig) -> tuple[Path, Path]:
    """Where a study writes and where its states live (DESIGN: `paths.output`, `paths.store`)."""
    output = Path(run.paths.output or f"outputs/{run.study.name}")
    if run.paths.store:
        return output, Path(run.paths.store)
    return output, output / "store" if run.paths.output else Path("outputs/store")


def _surroundings(role: str, subject: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """What is wrong around a run: texts and templates that are not there, folders that cannot be written."""
    if role == "tokenizer":
        tokenizer, chat = subject
        for message in check_template_file(tokenizer):
            yield "model.tokenizer.chat_template", message
        for name, message in check_chat_template(tokenizer) if chat else ():
            yield f"model.tokenizer.{name}", message
        return
    if role != "paths" and subject[0].kind == self_generated.KIND:
        yield from ((f"{role}.{name}", message) for name, message in self_generated.check(subject[0]))
        return
    if role != "paths":
        for message in check_source(subject[0]):
            yield f"{role}.path", message
        return
    paths, study, plan = subject
    if not study.name or set(study.name) & set("/\\\0") or study.name.startswith("."):
        yield "study.name", "must be a plain folder name"
    if plan != "false":  # writes nothing there
        return
    for name, folder in (("paths.output", paths.output or "outputs"), ("paths.store", paths.store or "outputs")):
        reason = unwritable(Path(folder))
        if reason:
            yield name, reason
