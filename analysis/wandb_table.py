"""Run tables from W&B: any project whose runs carry the run table's names in config or summary."""

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.errors import UserError

TIMEOUT_SECONDS = 30
_STATUS = {"finished": "done", "failed": "failed", "crashed": "failed", "killed": "failed"}
HISTORY_METRICS = (
    *("train_target_loss", "train_generic_loss", "gradient_norm", "learning_rate"),
    *("target_loss", "target_loss_selection", "generic_loss"),
)


def _runs(path: str, filters: Mapping[str, Any] | None) -> list[Any]:
    """The runs of ENTITY/PROJECT. Raises UserError where W&B is missing, unreachable, or knows no such project."""
    if path.count("/") != 1 or not all(path.split("/")):
        raise UserError(f"W&B runs are named wandb:ENTITY/PROJECT, not wandb:{path}")
    try:
        import wandb
    except ImportError:
        raise UserError("reading from W&B needs the wandb package: pip install wandb") from None
    logging.getLogger("wandb").setLevel(logging.ERROR)
    try:
        return list(wandb.Api(timeout=TIMEOUT_SECONDS).runs(path, filters=dict(filters or {}), per_page=200))
    except Exception as error:  # wandb raises many kinds: no network, no key, no project
        raise UserError(f"W&B gave no runs of {path}: {' '.join(str(error).split())[:200]}") from None


def read_wandb_runs(path: str, filters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """A run table, one row per W&B run, unchecked.

    Args: `path`, "ENTITY/PROJECT"; `filters`, MongoDB-style, as wandb.Api().runs takes them. Config and summary values
    become columns under their own names (summary wins); private ones are dropped; `run_id` is the run's id unless
    config has one; `status` follows the run's state. Raises UserError where there is nothing to read.
    """
    rows = []
    for run in _runs(path, filters):
        row: dict[str, Any] = {"run_id": run.id}
        row |= {key: value for key, value in run.config.items() if _plain(key, value)}
        row |= {key: value for key, value in dict(run.summary).items() if _plain(key, value)}
        row["status"] = _STATUS.get(run.state, "pending")
        rows.append(row)
    if not rows:
        raise UserError(f"W&B has no runs of {path}" + (" under these filters" if filters else ""))
    return pd.DataFrame(rows)


def read_wandb_history(path: str, filters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The history of W&B runs in long form: run_id, step, metric, value."""
    parts = [pd.DataFrame(columns=["run_id", "step", "metric", "value"])]
    for run in _runs(path, filters):
        rows = pd.DataFrame(run.scan_history(page_size=10_000))
        metrics = [metric for metric in HISTORY_METRICS if metric in rows]
        if not metrics:
            continue
        long = rows.melt("_step", metrics, "metric", "value").dropna(subset="value").rename(columns={"_step": "step"})
        parts.append(long.assign(run_id=run.config.get("run_id", run.id))[["run_id", "step", "metric", "value"]])
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _plain(key: str, value: Any) -> bool:
    return not key.startswith("_") and isinstance(value, str | int | float | bool)
