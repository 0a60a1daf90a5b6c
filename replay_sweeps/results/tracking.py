"""Experiment tracking: each finished run's whole history, shared trunk included, as CSV and in Weights & Biases."""

import csv
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from replay_sweeps.config import LoggerConfig
from replay_sweeps.errors import CannotGoOn, DamagedFile
from replay_sweeps.files import read_bounded, write_atomically
from replay_sweeps.results.run_table import RunRecord
from replay_sweeps.store.states import METRICS

logger = logging.getLogger(__name__)

MOST_POINTS = 100  # of a run's training series that are sent; the history in the study's folder has all of them


def track_finished_runs(
    output: Path, study: str, settings: LoggerConfig, rows: Sequence[Mapping[str, Any]], records: Sequence[RunRecord]
) -> None:
    """Write every finished run that was not written before. A tracker that fails is said, and ends nothing."""
    seen_file = output / "mirrored.json"
    seen = _tracked(seen_file)
    fresh = [
        (row, record)
        for row, record in zip(rows, records, strict=True)
        if record.done and f"{settings.mode} {row['run_id']}" not in seen
    ]
    for row, record in fresh:
        _write_history_csv(output / "history" / f"{row['run_id']}.csv", record)
        try:
            if settings.mode != "csv":
                _send_to_wandb(output, study, settings, row, record)
        except Exception as error:
            logger.warning("Weights & Biases was not told of run %s: %s", row["run_id"], error)
            continue
        seen.add(f"{settings.mode} {row['run_id']}")
    if fresh:
        write_atomically(seen_file, json.dumps(sorted(seen)).encode())


def _tracked(file: Path) -> set[str]:
    """The runs that the trackers have, each with the mode of W&B; none where the file that says so is damaged."""
    try:
        return {name for name in json.loads(read_bounded(file)) if isinstance(name, str)}
    except (OSError, ValueError, TypeError, RecursionError, DamagedFile, CannotGoOn):
        return set()


def _metrics_by_step(record: RunRecord) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    for step, metric, value in record.history():
        steps.setdefault(step, {})[metric] = value
    return steps


def _write_history_csv(file: Path, record: RunRecord) -> None:
    text = io.StringIO()
    names = ["step", *METRICS, "target_loss", "target_loss_selection", "generic_loss"]
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows({"step": step, **values} for step, values in _metrics_by_step(record).items())
    write_atomically(file, text.getvalue().encode())


def _send_to_wandb(output: Path, study: str, settings: LoggerConfig, row: Mapping[str, Any], record: RunRecord) -> None:
    """One run to Weights & Biases: group = study, flat configuration, id from the run id."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    quiet = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, save_code=False, disable_job_creation=True,
        x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
        x_disable_viewer=True, finish_timeout=30, x_graphql_retry_max=3,
    )  # fmt: skip
    measured = (
        "status",
        "reason",
        "target_loss",
        "generic_loss",
        "target_loss_selection",
        "target_train_loss",
        "seconds",
        "log",
    )
    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=study,
        id=f"{study}-{row['run_id']}",
        name=row["run_id"],
        config={name: value for name, value in row.items() if name not in measured},
        dir=str(output),
        mode="online" if settings.mode == "online" else "offline",
        settings=quiet,
        reinit="create_new",
        resume="allow" if settings.mode == "online" else None,
    )
    steps = _metrics_by_step(record)
    observed = [step for step, values in steps.items() if values.keys() - set(METRICS)]
    sent = sorted({*list(steps)[:: max(1, len(steps) // MOST_POINTS)], *observed})
    for step in sent:
        run.log(steps[step], step=step)
    run.summary.update({name: row[name] for name in measured if row[name] not in (None, "")})
    run.finish()
