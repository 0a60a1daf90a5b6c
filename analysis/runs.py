"""Run tables: from a study folder, parquet, CSV or W&B, checked once, every problem in one message."""

import warnings
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.caveats import Caveat
from analysis.errors import UserError
from analysis.spreadsheets import without_spreadsheet_marks

REQUIRED = ("target_tokens", "replay_fraction", "target_loss")
SEEDS = ("init_seed", "order_seed", "subset_seed")
NUISANCE = ("target_epochs", "stage1_lr", "stage2_lr", "weight_decay", "lr_schedule")
LOSSES = ("target_loss", "generic_loss", "target_loss_selection", "target_train_loss")
NUMERIC = (
    *("target_tokens", "target_epochs", "total_tokens", "replay_fraction", "realised_replay_fraction"),
    *("stage2_allocation", "stage1_lr", "stage2_lr", "weight_decay", "parameters", "steps", "stage2_step", "seconds"),
    *SEEDS,
    *LOSSES,
)
TEXT = ("run_id", "study", "status", "reason", "mode", "model", "target", "generic", "lr_schedule", "key")
STATUSES = ("done", "failed", "pending")

# No number of a run is larger, or, where it must be above zero, smaller than its inverse.
LARGEST = 1e30
_LARGEST_SEED = 2.0**53

# ln of 262,144, the largest vocabulary in use: no trained model is worse than a uniform guess.
_UNIFORM_GUESS_NATS = 12.5
_UNIFORM_GUESS_BITS = 18.1


def load_runs(path: str | Path, filters: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The run table at `path`: one row per run whatever its status, losses in nats per token.

    Args: `path`, a folder that holds runs.parquet or runs.csv, such a file, or "wandb:ENTITY/PROJECT"; `filters`,
    MongoDB-style, for W&B. The table's `attrs["warnings"]` lists what is suspicious without being wrong (losses that
    look like bits or perplexities).

    Raises UserError with one line per problem: a file that is missing, empty or damaged, missing columns, values
    that are no numbers or out of range.
    """
    if str(path).startswith("wandb:"):
        from analysis.wandb_table import read_wandb_runs

        return checked_runs(read_wandb_runs(str(path).removeprefix("wandb:"), filters), str(path))
    file = _table_file(Path(path), "runs")
    if file is None:
        raise UserError(f"{path} holds neither runs.parquet nor runs.csv")
    return checked_runs(_read_table(file), str(file))


def load_history(path: str | Path) -> pd.DataFrame | None:
    """The history beside a run table (columns run_id, step, metric, value), None where there is none.

    Raises UserError where the file is damaged or lacks a column.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = _table_file(folder, "history")
    if file is None:
        return None
    history = _read_table(file)
    missing = [name for name in ("run_id", "step", "metric", "value") if name not in history]
    if missing:
        raise UserError(f"{file} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return _checked_history(history, file)


def _checked_history(history: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The history with numbers as numbers; what no loss or rate can be counts as infinite, as of a run that diverged.

    Raises UserError with one line per problem.
    """
    problems = [
        f"{file}: the column {name} {_NESTED}" for name in ("run_id", "metric") if has_nested_cells(history, name)
    ]
    history = history.reset_index(drop=True)
    for name in ("step", "value"):
        try:
            history[name] = pd.to_numeric(history[name]).astype(float)
        except (TypeError, ValueError, OverflowError):
            problems.append(f"{file}: the column {name} must hold numbers")
    if problems:
        raise UserError(*problems)
    for name in ("run_id", "metric"):
        history[name] = _as_texts(history[name])
    history["value"] = history["value"].where(history["value"].abs() <= LARGEST, np.inf)
    return history[history["step"].abs() <= LARGEST]


def _table_file(path: Path, stem: str) -> Path | None:
    if path.is_dir():
        return next((f for suffix in ("parquet", "csv") if (f := path / f"{stem}.{suffix}").is_file()), None)
    if not path.exists():
        raise UserError(f"there is no run table at {path}")
    if not path.is_file():
        raise UserError(f"{path} is neither a folder nor a file")
    return path


def _read_table(file: Path) -> pd.DataFrame:
    if file.suffix == ".parquet":
        return _read_parquet(file)
    if file.suffix != ".csv":
        raise UserError(f"{file} is no run table: a folder, .parquet or .csv is needed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(file, skipinitialspace=True, index_col=False, dtype=dict.fromkeys(TEXT, str))
            return without_spreadsheet_marks(table)
    except pd.errors.ParserWarning:
        raise UserError(f"{file} is no CSV table: rows have more fields than the header") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{file} is empty") from None
    except (ValueError, OverflowError) as error:  # pandas' own errors and those of the encoding are among these
        raise UserError(f"{file} is no CSV table: {_one_line(error)}") from None


def _read_parquet(file: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        fields = pq.read_schema(file)
        nested = [field.name for field in fields if pa.types.is_nested(field.type)]
        if wrong := [name for name in nested if name.strip() in _READ]:
            raise UserError(*(f"{file}: the column {name} {_NESTED}" for name in wrong))
        flat = [field.name for field in fields if field.name not in nested] if nested else None
        return pq.read_table(file, columns=flat, page_checksum_verification=True).to_pandas()
    except PermissionError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is damaged or no parquet file: {_one_line(error)}") from None


_READ = {*NUMERIC, *TEXT, "run_id", "step", "metric", "value"}
_NESTED = "holds lists or groups of values: a run table has one number or one text in each cell"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def checked_runs(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with numbers as numbers and a `status` for every run; `name` stands in the messages.

    Raises UserError with one line per problem.
    """
    runs = table.rename(columns={column: str(column).strip() for column in table.columns}).reset_index(drop=True)
    if runs.columns.duplicated().any():
        raise UserError(f"{name} has the column {runs.columns[runs.columns.duplicated()][0]} twice")
    missing = [column for column in REQUIRED if column not in runs]
    problems = [f"{name} lacks the column {column}" for column in missing]
    if len(runs) == 0 and not missing:
        problems.append(f"{name} has no rows")
    problems += [f"the column {column} {_NESTED}" for column in (*NUMERIC, *TEXT) if has_nested_cells(runs, column)]
    if problems:
        raise UserError(*problems)
    given_status = "status" in runs
    if not given_status:
        runs["status"] = "done"
    runs["status"] = runs["status"].astype("object").where(runs["status"].notna(), "pending")
    unknown = sorted({str(s) for s in runs["status"].unique()} - set(STATUSES))
    if unknown:
        problems.append(f"status must be {', '.join(STATUSES)}, not {', '.join(unknown[:5])}")
    done = runs["status"] == "done"
    for column in [c for c in dict.fromkeys(NUMERIC) if c in runs]:
        problems += _as_numbers(runs, column, done, given_status)
    problems += _range_problems(runs, done)
    if "run_id" in runs and runs["run_id"].duplicated().any():
        twice = runs["run_id"][runs["run_id"].duplicated()].astype(str).unique()
        problems.append(f"run_id is not unique: {', '.join(twice[:5])}")
    if problems:
        raise UserError(*problems)
    for column in [c for c in TEXT if c in runs]:
        runs[column] = _as_texts(runs[column])
    runs.attrs["warnings"] = _unit_suspicions(runs, done)
    return runs


def _as_texts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column as plain strings, "" for what is missing."""
    values = values.astype("object").where(values.notna(), "")
    return values.map(lambda value: value if isinstance(value, str) else str(value)).astype("object")


def has_nested_cells(runs: pd.DataFrame, column: str) -> bool:
    """Whether a column of the table holds lists, groups or other values that have parts."""
    if column not in runs or runs[column].dtype != object:
        return False
    return bool(runs[column].map(lambda value: np.ndim(value) > 0 or isinstance(value, Mapping | Set)).any())


def _as_numbers(runs: pd.DataFrame, column: str, done: "pd.Series[bool]", given_status: bool) -> list[str]:
    """Turn a column into floats in place; what could not be turned, and required values that are missing."""
    values = runs[column]
    try:
        numbers = pd.to_numeric(values, errors="coerce").astype(float)
    except (TypeError, ValueError, OverflowError):
        return [f"{column} must be a number: {_quoted(values)}"]
    problems = []
    strings = numbers.isna() & values.notna()
    if strings.any():
        problems.append(f"{column} must be a number: {_rows(strings)} {_quoted(values[strings])}")
    absent = values.isna() & done
    if absent.any() and column in REQUIRED:
        if column != "target_loss":
            problems.append(f"{column} is missing in {_rows(absent)}")
        elif not given_status:
            problems.append(f"target_loss is missing in {_rows(absent)}: remove them or add a status column (failed)")
    runs[column] = numbers
    return problems


def _range_problems(runs: pd.DataFrame, done: "pd.Series[bool]") -> list[str]:
    problems = []
    above_zero = ("target_tokens", "target_epochs", "parameters")
    fractions = ("replay_fraction", "stage2_allocation")
    others = [column for column in NUMERIC if column not in (*fractions, *SEEDS, *LOSSES)]
    for column, allowed, words in (
        *((c, lambda v: v >= 1 / LARGEST, "above zero") for c in above_zero),
        ("replay_fraction", lambda v: (v >= 0) & (v < 1), "in [0, 1)"),
        ("stage2_allocation", lambda v: (v >= 0) & (v <= 1), "in [0, 1]"),
        *((loss, lambda v: v >= 0, "at least zero (nats per token)") for loss in LOSSES),
        *((loss, lambda v: (v <= LARGEST) | np.isinf(v), f"at most {LARGEST:g}, or infinite") for loss in LOSSES),
        *((c, lambda v: np.abs(v) <= LARGEST, f"at most {LARGEST:g}") for c in others),
        *((c, lambda v: np.abs(v) <= _LARGEST_SEED, f"at most {_LARGEST_SEED:.0f}") for c in SEEDS),
    ):
        if column not in runs or runs[column].dtype != float:
            continue
        wrong = runs[column].notna() & ~allowed(runs[column])
        if column in LOSSES:
            wrong &= done
        if wrong.any():
            problems.append(f"{column} must be {words}: {_rows(wrong)} {_quoted(runs[column][wrong])}")
    return problems


def _unit_suspicions(runs: pd.DataFrame, done: "pd.Series[bool]") -> list[Caveat]:
    """Losses that are hardly nats per token."""
    caveats = []
    for column in [c for c in LOSSES if c in runs]:
        values = runs.loc[done & np.isfinite(runs[column]), column]
        if values.empty or values.median() <= _UNIFORM_GUESS_NATS:
            continue
        unit = "perplexities" if values.median() > _UNIFORM_GUESS_BITS else "bits or perplexities"
        text = (
            f"the median {column} is {values.median():.4g}, worse than a uniform guess in nats; "
            f"these look like {unit} (nats = bits·ln 2 = ln perplexity)"
        )
        caveats.append(Caveat("units", text))
    for column in ("perplexity", "target_perplexity"):
        if column in runs:
            caveats += _against_perplexity(runs[done], column)
    return caveats


def _against_perplexity(runs: pd.DataFrame, column: str) -> list[Caveat]:
    perplexity = pd.to_numeric(runs[column], errors="coerce")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (runs["target_loss"] / np.log(perplexity)).median()
    if np.isfinite(ratio) and abs(ratio - 1 / np.log(2)) < 0.02:
        return [Caveat("units", f"target_loss is log2 of {column}: bits, not nats (multiply by ln 2)")]
    if np.isfinite(ratio) and abs(ratio - 1) > 0.1:
        return [Caveat("units", f"target_loss is not ln of {column}; is it in nats per token?")]
    return []


def _rows(mask: "pd.Series[bool]") -> str:
    """Rows in words, counted from 1 below the header."""
    numbers = np.flatnonzero(mask.to_numpy()) + 1
    first = ", ".join(str(n) for n in numbers[:5])
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"row{'s' if len(numbers) > 1 else ''} {first}{more}"


def _quoted(values: Any) -> str:
    first = [str(v) for v in dict.fromkeys(values.head(5))]
    return f"({', '.join(first[:3])})"
