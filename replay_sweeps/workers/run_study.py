"""The whole life of a study, on one page: prepare, plan, fit the budget, train, write. The file to read first."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.data.sources.self_generated import KIND, model_of
from replay_sweeps.data.study_texts import StudyTexts, fingerprints_of, sampled_folders
from replay_sweeps.errors import CannotGoOn, UserError, storage_problem
from replay_sweeps.interrupt import raised_on_terminate
from replay_sweeps.models.numerics import known_rates, measured_rates
from replay_sweeps.plan.decision import within_budget
from replay_sweeps.plan.memory import memory_of, too_large
from replay_sweeps.plan.timing import Timing
from replay_sweeps.progress import Progress
from replay_sweeps.results.write_results import write_results
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.leftovers import clear_half_written
from replay_sweeps.store.retention import drop_unneeded
from replay_sweeps.store.states import Store
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.store.study_records import (
    StudyRecord,
    keep_texts,
    kept_for_others,
    read_study_record,
    write_study_record,
)
from replay_sweeps.study.study import Study
from replay_sweeps.tree.enough_text import prepare_texts
from replay_sweeps.tree.study_plan import StudyPlan, plan_study
from replay_sweeps.workers.pool import WorkerPool, reports_of
from replay_sweeps.workers.work_order import WorkOrder

logger = logging.getLogger(__name__)

WORK_FILE, MEASURE_FILE = "work.json", "measure.json"
Launch = Callable[[Path, int], Sequence[Any]]  # starts so many workers on a work file, waits, gives what they returned


def run_study(study: Study, launch: Launch) -> None:
    """Run a study; what was done before is found in the store.

    Raises UserError when the text or the model does not suit the study, CannotGoOn when workers cannot work,
    Interrupted when the command is asked to stop. The run table is written whatever happens.
    """
    with one_line_for_storage(study.store):
        check_memory(study)
        fetch_models(study.runs)
        clear_half_written(Store(study.store))
        plan = plan_study(study, prepare_study_texts(study), measured_rates(study.store))
        with raised_on_terminate():
            plan = within_budget(plan, lambda run: measure_steps(plan.only([run.run_id]), launch))
        for line in plan.study.budget["says"] if plan.study.budget else ():
            logger.info("%s", line)
        status = StudyStatus(plan.tree, Store(study.store))
        record_study(plan, complete=False)
        try:
            with raised_on_terminate():
                train(plan, status, launch)
        finally:
            write_results(plan, status)
        record_study(plan, complete=not any(status.missing()))


def check_memory(study: Study) -> None:
    """Raise UserError when a model does not fit into the memory that is known, before anything is loaded."""
    sizes = [fingerprints_of(run, None)[2] for run in study.runs]
    problem = too_large(*memory_of(study.runs, sizes, known_rates(study.store), study.elsewhere))
    if problem:
        raise UserError(problem)


def fetch_models(runs: Sequence[RunConfig]) -> None:
    """Fetch the pretrained models that are not here, those that text is sampled from too.

    Raises UserError with one line for one that cannot be used.
    """
    models = dict.fromkeys(replace(run.model, init_seed=0) for run in runs if run.model.path is not None)
    sources = dict.fromkeys(source for run in runs for source in (run.generic, run.target) if source.kind == KIND)
    models |= dict.fromkeys(map(model_of, sources))
    if models:
        from replay_sweeps.models.build import fetch_pretrained  # imports torch and transformers

        for model in models:
            fetch_pretrained(model)


def prepare_study_texts(study: Study) -> StudyTexts:
    """The study's text, prepared where it is not there yet; the store keeps it from now on."""
    kept = (study.store, study.name, study.output)
    keep_texts(*kept, sampled_folders(source for run in study.runs for source in (run.generic, run.target)))
    texts = prepare_texts(study.runs, study.store)
    keep_texts(*kept, texts.folders())
    return texts


def measure_steps(plan: StudyPlan, launch: Launch) -> Timing:
    """Time a few steps of the one run of a plan. All workers measure at once, as they will train: on the machines, and
    beside each other. Raises CannotGoOn where none of them could."""
    study = plan.study
    logger.info("budget %s: measuring a few steps", study.runs[0].budget)
    file = study.output / MEASURE_FILE
    WorkOrder.of(plan, measure=True).write(file)
    reports = reports_of(lambda: launch(file, study.workers), study.store)
    timings = [report.timing for report in reports if report.timing]
    if not timings:
        lines = dict.fromkeys(report.line for report in reports if report.line)
        raise CannotGoOn(*(lines or ["the workers ended while measuring: see the study's logs/"]))
    return max(timings, key=lambda timing: timing.step)


def train(plan: StudyPlan, status: StudyStatus, launch: Launch) -> None:
    """Start workers until nothing is left to do, then drop what nothing waits for."""
    study, missing = plan.study, status.missing()
    for index in range(len(missing)):
        if status.failed(index):
            status.store.clear_failure(status.tree.end(index))
    if any(missing):
        order, file = WorkOrder.of(plan), study.output / WORK_FILE
        order.write(file)
        progress = None if study.in_process else Progress(len(plan.runs))
        leases = Leases(study.store, order.session)
        WorkerPool(status, leases, order.pool, lambda workers: launch(file, workers)).run(progress)
        if progress:
            progress.close()
    others = functools.partial(kept_for_others, study.store, study.name, study.output)
    drop_unneeded(status, status.missing(), study.runs[0].keep_states, others)


def record_study(plan: StudyPlan, complete: bool) -> None:
    """Keep in the store what the study refers to, unless the store has it so already."""
    study, record = plan.study, StudyRecord.of(plan, complete)
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
