"""Tables, histories and study files that are odd or hostile: one line and exit code 2, or a safe report."""

import errno
import json
from pathlib import Path

import pandas as pd
import pytest

from analysis import files, load_history, load_runs
from analysis.errors import UserError, file_problem
from analysis.main import main
from analysis.simulate import simulate_runs
from analysis.spreadsheets import csv_text
from tests.analysis.helpers import write_study

FAST = ["--replicates", "200"]
FORMULAS = ("=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1")


def table(**columns: object) -> pd.DataFrame:
    """A small run table with odd columns."""
    return simulate_runs(target_tokens=(8192, 16384), replay_tokens=(8192,), epochs=(8,), seeds=2).assign(**columns)


def tables(*parts: pd.DataFrame) -> pd.DataFrame:
    """Several tables as one, each run with an id of its own."""
    runs = pd.concat(parts, ignore_index=True)
    return runs.assign(run_id=[f"r{number}" for number in range(len(runs))])


def the_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What a command that fails says, in one line."""
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("replay-analyze: "), lines
    return lines[0]


@pytest.mark.parametrize("column", ("target_loss", "target", "status", "run_id", "order_seed"))
@pytest.mark.parametrize("value", ([1.0, 2.0], {"a": 1.0}))
def test_a_column_of_lists_or_groups_is_told_in_one_line(tmp_path, capsys, column, value):
    runs = table()
    runs[column] = [value] * len(runs)
    runs.to_parquet(tmp_path / "runs.parquet")
    assert f"the column {column} holds lists or groups of values" in the_one_line(capsys, [str(tmp_path)])


def test_a_nested_column_that_nobody_reads_is_passed_over(tmp_path):
    runs = table()
    runs["notes"] = [[1, 2]] * len(runs)
    runs.to_parquet(tmp_path / "runs.parquet")
    assert "notes" not in load_runs(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    (
        ("target_tokens", 1e300, "target_tokens must be at most 1e+30: row 4 (1e+300)"),
        ("target_tokens", 1e-300, "target_tokens must be above zero"),
        ("target_loss", 1e300, "target_loss must be at most 1e+30, or infinite"),
        ("generic_loss", 1e300, "generic_loss must be at most 1e+30, or infinite"),
        ("total_tokens", 1e300, "total_tokens must be at most 1e+30"),
        ("stage1_lr", float("inf"), "stage1_lr must be at most 1e+30"),
        ("order_seed", 1e300, "order_seed must be at most 9007199254740992"),
    ),
)
def test_a_number_out_of_all_bounds_is_told_in_one_line(tmp_path, capsys, column, value, words):
    runs = table()
    runs[column] = runs.get(column, 1.0)
    runs[column] = runs[column].astype(float)
    runs.loc[3, column] = value
    runs.to_csv(tmp_path / "runs.csv", index=False)
    assert words in the_one_line(capsys, [str(tmp_path)])


def test_a_loss_that_ran_to_infinity_is_left_out_as_before(tmp_path, capsys, no_figures):
    runs = table()
    runs.loc[0, "target_loss"] = float("inf")
    runs.to_csv(tmp_path / "runs.csv", index=False)
    assert main([str(tmp_path), *FAST]) == 0
    assert "without a finite target loss" in capsys.readouterr().out


def test_a_history_of_odd_values_is_told_in_one_line_or_cut(tmp_path):
    good = {"run_id": ["a"], "step": [1], "metric": ["target_loss"], "value": [1e300]}
    pd.DataFrame(good).to_parquet(tmp_path / "history.parquet")
    history = load_history(tmp_path)
    assert history is not None and history["value"].tolist() == [float("inf")]
    for column, value in (("value", "high"), ("step", [1]), ("run_id", [1])):
        pd.DataFrame({**good, column: [value]}).to_parquet(tmp_path / "history.parquet")
        with pytest.raises(UserError, match=column) as caught:
            load_history(tmp_path)
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize("depth", (50, 100_000))
def test_a_deep_study_json_is_told_in_one_line(tmp_path, capsys, depth):
    folder = write_study(
        tmp_path / "study", table(run_id="r").assign(run_id=lambda t: [f"r{i}" for i in range(len(t))])
    )
    (folder / "study.json").write_text('{"machine": ' + "[" * depth + "]" * depth + "}")
    assert "study.json is nested more than 32 deep" in the_one_line(capsys, [str(folder), *FAST])


def test_a_study_json_of_odd_values_gives_a_report(tmp_path, no_figures):
    odd = {
        "title": "\ud800 <i>title</i>",
        "name": ["x"],
        "command": "replay-sweep ``` <b>\n",
        "budget": {"left_out": 5},
        "altered": [{"setting": "x"}, 3, None],
        "base_scores": {"accuracy": 10**400},
        "sources": [{"name": "maths", "role": "target", "token_frequency_divergence": 10**400}, {"role": 3}, 7],
        "machine": {"a": [{"b": [1, 2.5, None, True]}]},
    }
    runs = table(accuracy=0.5)
    (tmp_path / "study.json").write_text(json.dumps(odd))
    runs.to_csv(tmp_path / "runs.csv", index=False)
    assert main([str(tmp_path), *FAST]) == 0
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# ? &lt;i>title&lt;/i>\n") and "````\nreplay-sweep ``` <b>" in report


def test_a_fifo_or_another_thing_in_place_of_a_table_does_not_hang(tmp_path, capsys):
    import os

    os.mkfifo(tmp_path / "runs.csv")
    assert "is neither a folder nor a file" in the_one_line(capsys, [str(tmp_path / "runs.csv")])
    assert "holds neither runs.parquet nor runs.csv" in the_one_line(capsys, [str(tmp_path)])


HOSTILE = "<img src=x onerror=alert(1)>|a](http://x)\n&lt;"


def test_names_are_text_in_the_markdown_too(tmp_path, no_figures, capsys):
    runs = tables(table(target=HOSTILE, lr_schedule=HOSTILE), table(target="other", model="<b>"))
    runs.to_parquet(tmp_path / "runs.parquet")
    assert main([str(tmp_path), *FAST]) == 0
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "<img src=x" not in text and "<b>" not in text and "&lt;img src=x" in text and "&amp;lt;" in text
    markdown = (tmp_path / "report.md").read_text()
    assert "a](http" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    columns = {line.replace(r"\|", "").count("|") for line in rows}
    assert rows and columns <= {7, 9, 11}
    assert not any(line.startswith("&") for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_text_of_a_csv_is_a_formula(tmp_path, no_figures, formula):
    runs = tables(table(target=formula, lr_schedule=formula), table(target="other"))
    runs.to_parquet(tmp_path / "runs.parquet")
    assert main([str(tmp_path), *FAST, "--axis", "lr_schedule"]) == 0
    written = pd.read_csv(tmp_path / "multipliers.csv")
    assert set(written["target"]) == {f"'{formula}", "other"} and f"'{formula}" in set(written["lr_schedule"])
    numbers = written.select_dtypes("number")
    assert {"multiplier", "low", "high", "target_loss"} <= set(numbers.columns)


def test_numbers_and_texts_come_back_from_a_csv_as_they_were(tmp_path):
    runs = table(model="-1.5", target="=1", reason="'quoted'", generic="plain").assign(stage1_lr=-0.5)
    (tmp_path / "runs.csv").write_text(csv_text(runs))
    assert "'=1" in (tmp_path / "runs.csv").read_text() and "'-1.5" not in (tmp_path / "runs.csv").read_text()
    again = load_runs(tmp_path)
    for column in ("model", "target", "reason", "generic", "stage1_lr", "target_loss"):
        assert again[column].tolist() == runs[column].tolist()


@pytest.mark.parametrize(
    ("number", "words"),
    (
        (errno.ENOSPC, "the disk is full ("),
        (errno.EROFS, "cannot be read or written"),
        (errno.EIO, "Input/output error"),
    ),
)
def test_a_report_that_cannot_be_written_is_one_line_that_names_the_file(
    tmp_path, capsys, monkeypatch, no_figures, number, words
):
    def fails(path: Path, content: bytes) -> None:
        raise OSError(number, "Input/output error" if number == errno.EIO else "reason")

    monkeypatch.setattr(files, "_write_and_sync", fails)
    table().to_csv(tmp_path / "runs.csv", index=False)
    line = the_one_line(capsys, [str(tmp_path), *FAST])
    assert words in line and str(tmp_path / "multipliers.csv") in line and "Errno" not in line
    assert "[Errno" not in file_problem(OSError(number, "reason"))
