"""The Hydra sweeper: prepares text, lays the grid into a prefix tree, starts workers, writes the run table."""

import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from replay_sweeps.files import write_atomically

if TYPE_CHECKING:
    from replay_sweeps.study import Study
    from replay_sweeps.sweep.layout import Layout
    from replay_sweeps.sweep.texts import StudyTexts

logger = logging.getLogger(__name__)

WORK_FILE = "work.json"


class PrefixTreeSweeper(Sweeper):
    """Trains each distinct stretch of a grid once, with workers started through the configured launcher."""

    def __init__(self, grids: Any) -> None:
        self.grids = grids
        self.config: DictConfig | None = None
        self.loader: ConfigLoader | None = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config, self.loader = config, hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the study that the arguments name; what was done before is found in the store."""
        from replay_sweeps.command import read_command
        from replay_sweeps.study import resolve_study
        from replay_sweeps.sweep.layout import lay_out
        from replay_sweeps.sweep.store import Store
        from replay_sweeps.sweep.texts import prepare_texts
        from replay_sweeps.sweep.worker import Ledger

        assert self.loader is not None
        command = read_command(arguments, self.loader)
        study = resolve_study(command, self.loader)
        texts = prepare_texts(study.runs, study.store)
        layout = lay_out(study.runs, texts, measure(study))
        write_work(study)
        ledger = Ledger(layout.runs, Store(study.store))
        for path in ledger.paths:
            ledger.store.forgive(ledger.end(path))
        try:
            if any(ledger.needs()):
                overrides = [*command.fixed, f"+worker={study.output / WORK_FILE}"]
                for job in self.launcher.launch([overrides], initial_job_idx=0):
                    _ = job.return_value  # raises what the worker raised
        finally:
            write_results(study, texts, layout)


def measure(study: "Study") -> dict[str, Any] | None:
    """The rates of this machine, measured where the study's precision depends on them or its series report them."""
    from replay_sweeps.training.numerics import measured_rates

    return measured_rates(study.store)


def write_work(study: "Study") -> None:
    """What a worker is told: the runs and the store. Paths are absolute, so that a worker may start anywhere."""
    from replay_sweeps.sweep.plan import plain_values

    work = {
        "store": str(study.store.absolute()),
        "output": str(study.output.absolute()),
        "runs": [plain_values(asdict(run)) for run in study.runs],
    }
    write_atomically(study.output / WORK_FILE, json.dumps(work).encode())


def write_results(study: "Study", texts: "StudyTexts", layout: "Layout") -> None:
    """The run table, its history, and what a report says of the study; then the mirror."""
    from replay_sweeps.sweep.mirror import mirror_runs
    from replay_sweeps.sweep.store import Store
    from replay_sweeps.sweep.table import read_run, row, write_tables
    from replay_sweeps.sweep.worker import Ledger, why_failed

    store = Store(study.store)
    reasons = why_failed(Ledger(layout.runs, store))
    records = [read_run(run, store) for run in layout.runs]
    rows = [row(r, study.name, layout.vocab_sizes[r.run.run_id], reasons.get(r.run.run_id)) for r in records]
    write_tables(study.output, rows, records)
    conditions = [stretch.numerics for record in records for stretch in record.chain or ()]
    distinct = [dict(items) for items in dict.fromkeys(tuple(sorted(item.items())) for item in conditions)]
    write_atomically(study.output / "study.json", (json.dumps(about(study, texts, distinct), indent=1) + "\n").encode())
    mirror_runs(study.output, study.name, study.logger, rows, records)
    if len(distinct) > 1:
        logger.warning("this study mixes numerics, so that its states are not equal to the bit: %s", distinct)


def about(study: "Study", texts: "StudyTexts", conditions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a reader should know of a study: command, corpus, counts, versions, machine."""
    from replay_sweeps.sweep.plan import plain_values

    packages = ("replay-sweeps", "torch", "lightning", "transformers", "numpy", "hydra-core")
    first = study.runs[0]
    return {
        "name": study.name,
        "title": study.title,
        "command": study.command,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": {"system": platform.system(), "cores": os.cpu_count(), "numerics": list(conditions)},
        "sources": texts.summary(),
        "altered": list(study.altered),
        "axes": list(study.axes),
        "settings": {
            name: plain_values(asdict(getattr(first, name))) for name in ("model", "optimizer", "trainer", "evaluation")
        },
    }


def work(file: Path) -> None:
    """The task of a worker: do what is ready in the study that a work file describes."""
    from replay_sweeps.sweep.pool import Worker

    Worker.from_file(file).work()
