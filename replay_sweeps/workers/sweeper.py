"""The Hydra sweeper: prepares text, lays the grid into a prefix tree, starts workers, writes the run table."""

import json
import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from replay_sweeps.errors import CannotGoOn, UserError, storage_problem
from replay_sweeps.files import fingerprint, write_atomically
from replay_sweeps.interrupt import raised_on_terminate

if TYPE_CHECKING:
    from replay_sweeps.config import RunConfig
    from replay_sweeps.data.study_texts import StudyTexts
    from replay_sweeps.plan.timing import Timing
    from replay_sweeps.store.status import Ledger
    from replay_sweeps.study.study import Study
    from replay_sweeps.tree.layout import Layout
    from replay_sweeps.tree.planned_run import PlannedRun
    from replay_sweeps.workers.worker import Pool

logger = logging.getLogger(__name__)

WORK_FILE, MEASURE_FILE = "work.json", "measure.json"


class PrefixTreeSweeper(Sweeper):
    """Trains each distinct stretch of a grid once, with workers started through the configured launcher."""

    def __init__(self, grids: Any) -> None:
        self.grids = grids
        self.config: DictConfig | None = None
        self.loader: ConfigLoader | None = None
        self.context: Any = None
        self.task: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config, self.loader = config, hydra_context.config_loader
        self.context, self.task = hydra_context, task_function

    def _launcher(self, output: Path, workers: int) -> Any:
        """The configured launcher, told where the study writes and how many workers there are at most."""
        assert self.config
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(output.absolute())
            self.config.workers = workers
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=self.config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the study that the arguments name; what was done before is found in the store."""
        from replay_sweeps.data.study_texts import sampled_folders
        from replay_sweeps.models.numerics import measured_rates
        from replay_sweeps.results.study_record import write_results
        from replay_sweeps.store.states import Store
        from replay_sweeps.store.status import Ledger
        from replay_sweeps.store.study_records import keep_texts
        from replay_sweeps.study.command import read_command
        from replay_sweeps.study.study import resolve_study
        from replay_sweeps.tree.layout import lay_out
        from replay_sweeps.tree.target_size import prepare_texts, with_target_tokens

        assert self.loader is not None and self.config is not None
        launcher = [
            item for item in self.config.hydra.overrides.hydra if item.startswith(("hydra/", "hydra.launcher."))
        ]
        command = read_command([*arguments, *launcher], self.loader)  # Hydra keeps the launcher's settings to itself
        study = resolve_study(command, self.loader)
        with one_line_for_storage(study.store):
            check_memory(study)
            prepare_models(study.runs)
            kept = (study.store, study.name, study.output)
            keep_texts(*kept, sampled_folders(source for run in study.runs for source in (run.generic, run.target)))
            texts = prepare_texts(study.runs, study.store)
            keep_texts(*kept, texts.folders())
            study = replace(study, runs=with_target_tokens(study.runs, texts))
            rates = measured_rates(study.store)
            layout = lay_out(study.runs, texts, rates)
            if study.runs[0].budget is not None:
                study = self._within_budget(command.fixed, study, texts, layout, rates)
                layout = lay_out(study.runs, texts, rates)
            ledger = Ledger(layout.runs, Store(study.store))
            refer(study, layout, ledger, complete=False)
            try:
                with raised_on_terminate():
                    self._train(command.fixed, study, texts, ledger, rates)
            finally:
                write_results(study, texts, layout, ledger)
            refer(study, layout, ledger, complete=not any(ledger.needs()))

    def _within_budget(
        self, fixed: Sequence[str], study: "Study", texts: "StudyTexts", layout: "Layout", rates: dict[str, Any]
    ) -> "Study":
        """The study with the runs that fit its budget, said on stderr; steps are measured where that was not done."""
        from replay_sweeps.plan.decision import within_budget
        from replay_sweeps.plan.timing import Timing
        from replay_sweeps.workers.pool import answers

        def measure(run: "PlannedRun") -> "Timing":
            logger.info("budget %s: measuring a few steps", run.config.budget)
            said = answers(lambda: self._measuring(fixed, study, texts, run, rates), study.store)
            timings = [Timing(**answer["timing"]) for answer in said if "timing" in answer]
            if not timings:
                lines = dict.fromkeys(answer["line"] for answer in said)
                raise CannotGoOn(*(lines or ["the workers ended while measuring: see the study's logs/"]))
            return max(timings, key=lambda timing: timing.step)

        with raised_on_terminate():
            study = within_budget(study, texts, layout, measure)
        for line in study.budget["says"] if study.budget else ():
            logger.info("%s", line)
        return study

    def _measuring(
        self, fixed: Sequence[str], study: "Study", texts: "StudyTexts", run: "PlannedRun", rates: dict[str, Any]
    ) -> Any:
        """Every worker measures at once, as they will train: on the machines, and beside each other."""
        from replay_sweeps.store.states import Store
        from replay_sweeps.store.status import Ledger
        from replay_sweeps.workers.worker import Pool

        alone = replace(study, runs=(run.config,))
        file = study.output / MEASURE_FILE
        write_work(alone, texts, Ledger([run], Store(study.store)), Pool(study.workers), rates, file, measure=True)
        return self._launcher(study.output, study.workers).launch(
            [worker_job(fixed, file)] * study.workers, initial_job_idx=0
        )

    def _train(
        self, fixed: Sequence[str], study: "Study", texts: "StudyTexts", ledger: "Ledger", rates: dict[str, Any]
    ) -> None:
        """Start workers until nothing is left to do."""
        from replay_sweeps.progress import Progress
        from replay_sweeps.store.leases import Leases
        from replay_sweeps.workers.pool import Rounds
        from replay_sweeps.workers.worker import Pool

        assert self.config
        needs, first = ledger.needs(), study.runs[0]
        for index in range(len(needs)):
            if ledger.failed(index):
                ledger.store.clear_failure(ledger.end(index))
        pool = Pool(study.workers, first.fail_fast, first.keep_states)
        if any(needs):
            launcher = self._launcher(study.output, pool.workers)
            file = study.output / WORK_FILE
            session = write_work(study, texts, ledger, pool, rates, file)
            job = worker_job(fixed, file)
            progress = None if study.in_process else Progress(len(ledger.runs))
            Rounds(
                ledger,
                Leases(study.store, session),
                pool,
                lambda workers: launcher.launch([job] * workers, initial_job_idx=0),
            ).run(progress)
            if progress:
                progress.close()
        for state in ledger.spent(ledger.needs(), pool.keep):
            ledger.store.drop_state(state)


def worker_job(fixed: Sequence[str], file: Path) -> list[str]:
    """The overrides of a launcher's job: a worker that does what a file tells."""
    return [*(item for item in fixed if not item.startswith("hydra")), f"+worker={quoted(str(file.absolute()))}"]


def quoted(value: str) -> str:
    """A text as Hydra's overrides take it, whatever is in it."""
    return "'" + re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'") + "'"


def check_memory(study: "Study") -> None:
    """Raise UserError when a model does not fit into the memory that is known, before anything is loaded."""
    from replay_sweeps.data.study_texts import names_of
    from replay_sweeps.models.numerics import known_rates
    from replay_sweeps.plan.memory import memory_of, too_large

    sizes = [names_of(run, None)[2] for run in study.runs]
    problem = too_large(*memory_of(study.runs, sizes, known_rates(study.store), study.elsewhere))
    if problem:
        raise UserError(problem)


def prepare_models(runs: "Sequence[RunConfig]") -> None:
    """Fetch the pretrained models that are not here, those that text is sampled from too.

    Raises UserError with one line for one that cannot be used.
    """
    from replay_sweeps.data.sources.self_generated import KIND, model_of

    models = dict.fromkeys(replace(run.model, init_seed=0) for run in runs if run.model.path is not None)
    sources = dict.fromkeys(source for run in runs for source in (run.generic, run.target) if source.kind == KIND)
    models |= dict.fromkeys(map(model_of, sources))
    if models:
        from replay_sweeps.models.build import fetch_pretrained

        for model in models:
            fetch_pretrained(model)


def refer(study: "Study", layout: "Layout", ledger: "Ledger", complete: bool) -> None:
    """Keep in the store what the study refers to, unless it says so already."""
    from replay_sweeps.store.study_records import StudyRecord, read_study_record, write_study_record

    record = StudyRecord.of(study.name, study.output, layout, ledger, complete)
    if record != read_study_record(study.store, study.name, study.output):
        write_study_record(study.store, record)


@contextmanager
def one_line_for_storage(store: Path) -> Iterator[None]:
    """Say in one line that a disk is full or cannot be written."""
    try:
        yield
    except OSError as error:
        problem = storage_problem(error, store)
        if problem is None:
            raise
        raise CannotGoOn(problem) from error


def write_work(
    study: "Study",
    texts: "StudyTexts",
    ledger: "Ledger",
    pool: "Pool",
    rates: dict[str, Any],
    file: Path,
    measure: bool = False,
) -> str:
    """Write what a worker is told, and give the session's name. Paths are absolute, so that a worker may start
    anywhere."""
    from replay_sweeps.config_builder import plain_values

    session = uuid.uuid4().hex
    work = {
        "store": str(study.store.absolute()),
        "output": str(study.output.absolute()),
        "session": session,
        "in_process": study.in_process,
        "measure": measure,
        "workers": pool.workers,
        "fail_fast": pool.fail_fast,
        "keep_states": pool.keep,
        "rates": rates,
        "keys": fingerprint([run.key(run.steps) for run in ledger.runs]),
        "runs": [plain_values(asdict(run)) for run in study.runs],
        "texts": [plain_values(asdict(run)) for run in texts.runs],
    }
    write_atomically(file, json.dumps(work).encode())
    return session
