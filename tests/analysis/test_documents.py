import json
import re
import runpy
from pathlib import Path

import pytest

from analysis import form_choice, multiplier, reference_curve
from tests.analysis.helpers import warning_names

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
    for path in (ROOT / "analysis").rglob("*.py"):
        given = warning_names(re.findall(r'f?"([a-z][a-z_]+: [^"]+)', path.read_text()))
        given = {name for name in given if "_" in name or name in ("edge", "untuned", "units", "binned", "diverged")}
        assert given <= documented, path
    assert {"degenerate", "extrapolation", "one_sided"} <= documented
    assert form_choice.FORMULAS and multiplier.__doc__ and reference_curve.FORMS


@pytest.mark.parametrize("name", ("analysis_calibration", "analysis_bootstrap"))
def test_recorded_benchmarks_name_command_versions_machine_and_spread(name):
    record = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    assert {"command", "commit", "python", "versions", "machine"} <= record.keys()


def test_the_recorded_coverage_keeps_its_promise_for_every_method():
    record = json.loads((ROOT / "benchmarks" / "analysis_calibration.json").read_text())
    promised = [entry for entry in record["entries"] if entry["method"] != "naive"]
    assert promised and all(0.85 <= entry["covered"] <= 0.95 for entry in promised)
    page = (ROOT / "docs" / "calibration.md").read_text()
    assert all(f"**{100 * entry['covered']:.1f}**" in page for entry in record["entries"])
