"""What the documents of the analysis promise is true of the code and of the recorded benchmarks."""

import json
import re
import runpy
from pathlib import Path
from typing import get_args

import pytest

from analysis.caveats import Code

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_notebooks_run_as_plain_python(notebook, capsys):
    runpy.run_path(str(notebook), run_name="notebook")
    assert "of 100 intervals hold the truth" in capsys.readouterr().out


def test_notebooks_define_no_functions():
    for notebook in (ROOT / "notebooks").glob("*.py"):
        assert not re.findall(r"^\s*(def|class) ", notebook.read_text(), re.M)


def test_the_documented_python_runs(tmp_path):
    text = (ROOT / "docs" / "analysis.md").read_text()
    block = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    names: dict[str, object] = {}
    exec(block.split("findings =")[0], names)
    assert round(names["result"].value, 2) == 1.87


def test_every_warning_that_the_code_can_give_is_explained():
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "analysis.md").read_text()))
    used = {
        code
        for path in (ROOT / "analysis").rglob("*.py")
        for code in re.findall(r'Caveat\(\s*"(\w+)"', path.read_text())
    }
    assert used == set(get_args(Code)) <= documented


@pytest.mark.parametrize("name", ("analysis_calibration", "analysis_bootstrap", "analysis_rows"))
def test_recorded_benchmarks_name_command_versions_machine_and_spread(name):
    record = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    assert {"command", "commit", "python", "versions", "machine"} <= record.keys()


def test_the_recorded_speed_keeps_its_promise():
    curves = json.loads((ROOT / "benchmarks" / "analysis_bootstrap.json").read_text())
    assert all(c["curve_fit"]["median"] > 50 * c["ours"]["median"] for c in curves["curves"])
    assert curves["study"]["runs"] == 200 and curves["study"]["median"] < 2
    table = json.loads((ROOT / "benchmarks" / "analysis_rows.json").read_text())
    assert table["rows"] == 1_000_000 and table["analysis"]["median"] < 30


def test_the_recorded_coverage_keeps_its_promise_for_every_method():
    record = json.loads((ROOT / "benchmarks" / "analysis_calibration.json").read_text())
    promised = [entry for entry in record["entries"] if entry["method"] != "naive"]
    assert promised and all(0.85 <= entry["covered"] <= 0.95 for entry in promised)
    page = (ROOT / "docs" / "calibration.md").read_text()
    assert all(f"**{100 * entry['covered']:.1f}**" in page for entry in record["entries"])
