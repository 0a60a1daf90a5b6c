"""Typed access to pandas tables: parts by key, rows by index, the row with the least value."""

from collections.abc import Sequence
from typing import Any

import pandas as pd


def parts(table: pd.DataFrame, by: str | Sequence[str]) -> list[tuple[Any, pd.DataFrame]]:
    """(key, rows) for every value of `by`, sorted; missing values are a key too."""
    return list(table.groupby(by if isinstance(by, str) else list(by), dropna=False, sort=True))


def rows(table: pd.DataFrame) -> list[tuple[Any, "pd.Series[Any]"]]:
    """(index, row) for every row."""
    return list(table.iterrows())


def best(table: pd.DataFrame, column: str = "selection_loss") -> "pd.Series[Any]":
    """The row with the least value of `column`, the first of equals."""
    return table.iloc[int(table[column].to_numpy().argmin())]
