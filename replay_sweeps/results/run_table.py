"""The run table: one row per run whatever its status, and the history of each run, read from the store."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from replay_sweeps.config import RateConfig
from replay_sweeps.files import write_atomically
from replay_sweeps.models.flops import parameters
from replay_sweeps.store.states import METRICS, Failure, SegmentRecord, Store
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.state_name import StateName

LAST_SHARE = 0.1  # of a run's steps: what `target_train_loss` is averaged over


@dataclass(frozen=True)
class RunRecord:
    """What the store knows of one run: its chain of stretches, oldest first, and its validation losses by step."""

    run: PlannedRun
    chain: tuple[SegmentRecord, ...] | None
    observed: Mapping[tuple[int, str], float]

    @property
    def done(self) -> bool:
        """Whether nothing of the run is missing."""
        wanted = {(item.step, item.metric) for item in self.run.observations}
        return self.chain is not None and wanted <= self.observed.keys()

    def history(self) -> list[tuple[int, str, float]]:
        """(step, metric, value) of all that was logged and observed, by step."""
        rows = [
            (int(step), metric, float(value))
            for segment_record in self.chain or ()
            for metric in METRICS
            for step, value in zip(segment_record.series["step"], segment_record.series[metric], strict=True)
            if step is not None and value is not None
        ]
        rows += [(step, metric, value) for (step, metric), value in self.observed.items()]
        return sorted(rows)


def read_run(run: PlannedRun, store: Store) -> RunRecord:
    """Gather a run from the store."""
    step, chain, observed = run.steps, [], {}
    while step > 0:
        segment_record = store.segment_record(StateName(run.root, step, run.key(step)))
        if segment_record is None:
            break
        chain.append(segment_record)
        step = segment_record.parent_step
    for item in run.observations:
        values = store.observation(StateName(run.root, item.step, run.key(item.step)), item.store)
        if values is not None:
            observed[item.step, item.metric] = values["loss"]
    return RunRecord(run, tuple(reversed(chain)) if step == 0 else None, observed)


def row(record: RunRecord, study: str, failed: Failure | None) -> dict[str, Any]:
    """One row of the run table. Tokens, nats per token, steps, seconds (of training, the shared trunk included)."""
    run, config, data = record.run, record.run.config, record.run.schedule
    schedule, length = config.schedule, config.trainer.row_length
    one, two = schedule.stage1, schedule.stage2
    last = {metric: record.observed.get((run.steps, metric)) for metric in _LOSSES}
    return {
        "run_id": run.run_id,
        "study": study,
        "status": "done" if record.done else "failed" if failed else "pending",
        "reason": failed.reason if failed and not record.done else "",
        "mode": schedule.mode,
        "model": config.model.name,
        "parameters": parameters(config.model, run.vocab_size),
        "target": config.target.name,
        "generic": config.generic.name,
        "target_tokens": data.target_rows * length,
        "target_epochs": schedule.target_epochs,
        "total_tokens": data.total_rows * length,
        "replay_fraction": float(schedule.replay_fraction),
        "realised_replay_fraction": data.realised_replay_fraction,
        "stage2_allocation": float(schedule.stage2_allocation),
        "lr_schedule": "/".join(_law_name(rate) for rate in (one, two) if rate),
        "stage1_lr": one.peak if one else None,
        "stage2_lr": two.peak if two else one.peak if one else None,
        "weight_decay": config.optimizer.weight_decay,
        "init_seed": config.model.init_seed,
        "order_seed": schedule.order_seed,
        "subset_seed": schedule.subset_seed,
        **last,
        "target_train_loss": _train_loss(record),
        "steps": run.steps,
        "stage2_step": data.stage2_step,
        "seconds": sum(segment_record.seconds for segment_record in record.chain) if record.chain is not None else None,
        "key": run.key(run.steps),
        "log": failed.log if failed and not record.done else "",
    }


_LOSSES = ("target_loss", "generic_loss", "target_loss_selection")


def _law_name(rate: RateConfig) -> str:
    return f"{rate.law}-{rate.cooldown_fraction:g}" if rate.law == "wsd" else rate.law


def _train_loss(record: RunRecord) -> float | None:
    """The mean of the logged training losses on target rows over the last tenth of the steps."""
    first = record.run.steps * (1 - LAST_SHARE)
    losses = [value for step, metric, value in record.history() if metric == "train_target_loss" and step >= first]
    return sum(losses) / len(losses) if losses and record.chain is not None else None


def write_tables(folder: Path, rows: Sequence[Mapping[str, Any]], records: Sequence[RunRecord]) -> None:
    """Write `runs.parquet`, `runs.csv` and `history.parquet`, with page checksums in the parquet files."""
    runs = pd.DataFrame(rows)
    for name in (*_LOSSES, "target_train_loss", "stage1_lr", "stage2_lr", "seconds"):
        runs[name] = runs[name].astype("float64")
    history = [(record.run.run_id, *line) for record in records for line in record.history()]
    series = pd.DataFrame(history, columns=["run_id", "step", "metric", "value"])
    write_atomically(folder / "runs.parquet", _parquet(runs))
    write_atomically(folder / "runs.csv", runs.to_csv(index=False).encode())
    write_atomically(folder / "history.parquet", _parquet(series))


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), buffer, write_page_checksum=True)
    return buffer.getvalue()
