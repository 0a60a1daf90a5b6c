"""What a finished or interrupted study leaves in its folder: tables, history, and what a report says of it."""

import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from replay_sweeps.config_builder import plain_values
from replay_sweeps.files import write_atomically
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.tree.study_plan import StudyPlan

logger = logging.getLogger(__name__)


def write_results(plan: StudyPlan, status: StudyStatus) -> None:
    """The run table, its history, and what a report says of the study; then experiment tracking."""
    from replay_sweeps.results.run_table import read_run, table_row, write_tables  # imports pandas
    from replay_sweeps.results.tracking import track_finished_runs

    study = plan.study
    status.refresh()
    reasons = status.why_failed()
    records = [read_run(run, status.store) for run in plan.runs]
    rows = [table_row(record, study.name, reasons.get(record.run.run_id)) for record in records]
    write_tables(study.output, rows, records)
    conditions = [segment.numerics for record in records for segment in record.chain or ()]
    distinct = [dict(items) for items in dict.fromkeys(tuple(sorted(item.items())) for item in conditions)]
    write_atomically(study.output / "study.json", (json.dumps(_about(plan, distinct), indent=1) + "\n").encode())
    track_finished_runs(study.output, study.name, study.logger, rows, records)
    if len(distinct) > 1:
        logger.warning("this study mixes numerics, so that its states are not equal to the bit: %s", distinct)


def _about(plan: StudyPlan, conditions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a reader should know of a study: command, corpus, counts, versions, machine."""
    packages = ("replay-sweeps", "torch", "lightning", "transformers", "numpy", "hydra-core")
    study, first = plan.study, plan.study.runs[0]
    return {
        "name": study.name,
        "title": study.title,
        "command": study.command,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": {"system": platform.system(), "cores": os.cpu_count(), "numerics": list(conditions)},
        "sources": plan.texts.summary() if plan.texts else [],
        "altered": list(study.altered),
        "budget": study.budget,
        "axes": list(study.axes),
        "settings": {
            name: plain_values(asdict(getattr(first, name))) for name in ("model", "optimizer", "trainer", "evaluation")
        },
    }
