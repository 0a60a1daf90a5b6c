"""replay-analyze from the command line: files, answer, options, and one line for each mistake."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from analysis.main import main
from analysis.report import figures
from analysis.simulate import simulate_runs
from tests.analysis.helpers import write_study

FAST = ["--replicates", "200"]


def test_a_folder_gets_its_table_figures_report_and_answer(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "DRAWERS", figures.DRAWERS[:2])  # all of them are drawn elsewhere
    folder = write_study(tmp_path / "study", simulate_runs(replay_tokens=(8192,), seeds=2))
    assert main([str(folder), *FAST]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("On 8.19 thousand target tokens, replaying 75 %")
    assert "report: " in shown.out and shown.err == ""
    for name in ("multipliers.csv", "report.html", "report.md", "figures/reference_curve.pdf",
                 "figures/loss_against_replay.png"):  # fmt: skip
        assert (folder / name).stat().st_size > 0
    table = pd.read_csv(folder / "multipliers.csv")
    assert len(table) == 4
    assert {"target_tokens", "replay_fraction", "multiplier", "low", "high", "level", "target_loss", "warnings"} <= set(
        table.columns
    )


def test_a_csv_of_three_columns_is_enough(tmp_path, capsys, no_figures):
    path = tmp_path / "mine.csv"
    runs = simulate_runs(replay_tokens=(8192,), seeds=2, epochs=(8,))
    runs[["target_tokens", "replay_fraction", "target_loss"]].to_csv(path, index=False)
    assert main([str(path), *FAST]) == 0
    assert (tmp_path / "mine_analysis" / "report.html").exists()
    assert "repeats" in capsys.readouterr().out


def test_out_names_the_folder(tmp_path, small_folder, capsys, no_figures):
    assert main([str(small_folder), "--out", str(tmp_path / "a" / "b"), *FAST]) == 0
    assert (tmp_path / "a" / "b" / "multipliers.csv").exists()
    assert not (small_folder / "multipliers.csv").exists()


def test_form_level_and_axis_reach_the_result(tmp_path, small_folder, capsys, no_figures):
    options = ["--form", "log", "--level", "0.5", "--axis", "target_epochs", "--out", str(tmp_path), *FAST]
    assert main([str(small_folder), *options]) == 0
    table = pd.read_csv(tmp_path / "multipliers.csv")
    assert set(table["level"]) == {0.5} and set(table["target_epochs"]) == {4, 8, 16}


def test_one_of_several_studies_is_chosen_by_name(tmp_path, capsys, no_figures):
    runs = pd.concat([simulate_runs(replay_tokens=(8192,), seeds=1, study=name) for name in "ab"], ignore_index=True)
    runs["run_id"] = range(len(runs))
    runs.to_csv(tmp_path / "runs.csv", index=False)
    assert main([str(tmp_path)]) == 2
    assert "mixes 2 studies (a, b): choose with --study" in capsys.readouterr().err
    assert main([str(tmp_path), "--study", "c"]) == 2
    assert main([str(tmp_path), "--study", "a", *FAST]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    (
        (["--level", "2"], "--level must lie between 0 and 1"),
        (["--replicates", "3"], "--replicates must lie between"),
        (["--filters", "{"], "--filters is no JSON"),
        (["--axis", "colour"], "no column colour"),
    ),
)
def test_bad_options_are_one_line_and_nothing_is_written(tmp_path, small_folder, capsys, options, words):
    assert main([str(small_folder), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", (["--form", "cubic"], ["--level", "x"], ["--nonsense"], []))
def test_unknown_options_are_one_line_too(options, small_folder, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(small_folder), *options] if options else [])
    assert caught.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_several_problems_are_a_line_each(tmp_path, capsys):
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    assert main([str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("replay-analyze: ") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_a_damaged_history_is_an_error(tmp_path, capsys):
    folder = write_study(tmp_path / "study", simulate_runs(replay_tokens=(8192,), seeds=1))
    path = folder / "history.parquet"
    path.write_bytes(path.read_bytes()[:-300])
    assert main([str(folder), *FAST]) == 2
    assert "history.parquet is damaged" in capsys.readouterr().err


def test_an_out_that_is_a_file_is_an_error(tmp_path, small_folder, capsys, no_figures):
    (tmp_path / "x").write_text("")
    for out in (tmp_path / "x", tmp_path / "x" / "y"):
        assert main([str(small_folder), "--out", str(out), *FAST]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_published_prints_the_papers_multipliers_with_intervals(tmp_path, capsys):
    assert main(["published", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Flan, fine-tuning, form power_law: 1.87× (90 %: " in shown
    assert "Flan, mid-training, form power_law: 2.06× (90 %: " in shown
    assert len(list((tmp_path / "figures").glob("*.pdf"))) == 4
    assert pd.read_csv(tmp_path / "points.csv")["source"].notna().all()
    assert set(pd.read_csv(tmp_path / "published.csv")["form"]) == {"power_law", "auto"}


def test_the_command_loads_no_torch_and_draws_only_when_asked():
    code = (
        "import json, sys\n"
        "from analysis import load_runs, ReferenceCurve, effective_data_multiplier\n"
        "import analysis.main, analysis.findings.study, analysis.report.report\n"
        "print(json.dumps(sorted(set(sys.modules) & {'torch', 'lightning', 'hydra', 'wandb', 'matplotlib'})))"
    )
    assert json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) == []


def test_unknown_names_of_the_package_are_attribute_errors():
    import analysis

    with pytest.raises(AttributeError, match="nonsense"):
        _ = analysis.nonsense
