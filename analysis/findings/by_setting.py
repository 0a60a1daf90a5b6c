"""Cells compared by a setting that is otherwise tuned away: weight decay, learning-rate schedule, epochs."""

from dataclasses import dataclass

import pandas as pd

from analysis.findings.cells import cells_with_losses
from analysis.findings.evidence import NotEnoughError
from analysis.findings.study import Findings, GroupFindings
from analysis.findings.tuning import GROUP, runs_with, tuned_runs


@dataclass(frozen=True)
class CellsBySetting:
    """The cells of `group` at `target_tokens`, with one row for each value of the setting too."""

    group: GroupFindings
    cells: pd.DataFrame
    target_tokens: float


def cells_by_setting(findings: Findings, column: str, most: int) -> list[CellsBySetting]:
    """The cells of those of the first `most` groups in which the setting `column` was varied.

    Raises NotEnoughError where there is none, or where the setting is compared already.
    """
    if column not in findings.done or findings.done[column].nunique() < 2:
        raise NotEnoughError(f"{column} was not varied")
    if column in findings.settings.axes:
        raise NotEnoughError(f"{column} is an axis of this analysis already")
    by_group = [_cells_of_group(findings, group, column) for group in findings.groups[:most]]
    varied = [cells for cells in by_group if cells is not None]
    if not varied:
        raise NotEnoughError(f"{column} was not varied at any one target size")
    return varied


def _cells_of_group(findings: Findings, group: GroupFindings, column: str) -> CellsBySetting | None:
    """The cells at the headline's target size, or where `column` was varied most; None where it was varied nowhere."""
    done = runs_with(findings.done, {key: group.label[key] for key in GROUP})
    varied = done.groupby("target_tokens")[column].nunique()
    if varied.max() < 2:
        return None
    tokens = float(varied.index[int(varied.to_numpy().argmax())])
    if group.headline is not None and varied.get(group.headline.row["target_tokens"], 0) > 1:
        tokens = float(group.headline.row["target_tokens"])
    tuned = tuned_runs(done[done["target_tokens"] == tokens], (column,))
    cells, _ = cells_with_losses(tuned.cells, tuned.runs)
    return CellsBySetting(group, cells, tokens)
