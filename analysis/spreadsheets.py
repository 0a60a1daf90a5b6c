"""Tables as CSV that a spreadsheet opens without running any of it: no text begins as a formula does."""

import re

import pandas as pd

# Excel, LibreOffice and Google Sheets compute a cell that begins with one of these.
_BEGINS_A_FORMULA = re.compile(r"[=+\-@\t\r]")
_MARKED = re.compile(r"'[=+\-@\t\r]")


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV, without its index; a text that a spreadsheet would compute begins with an apostrophe.

    Numbers stay as they are, those that stand in a column of text too.
    """
    safe = table.rename(columns=lambda name: _marked(str(name)))
    for place, dtype in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            safe.isetitem(place, table.iloc[:, place].astype("object").map(_marked).array)
    return safe.to_csv(index=False)


def without_spreadsheet_marks(table: pd.DataFrame) -> pd.DataFrame:
    """A table that was read from CSV, with its texts as they were before `csv_text`."""
    for name in table.columns:
        values = table[name]
        if isinstance(values, pd.Series) and not pd.api.types.is_numeric_dtype(values):
            marked = values.map(lambda value: isinstance(value, str) and bool(_MARKED.match(value))).astype(bool)
            if marked.any():
                table[name] = values.where(~marked, values.str[1:])
    return table


def _marked(value: object) -> object:
    if not isinstance(value, str) or not _BEGINS_A_FORMULA.match(value) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
