"""The analysis runs on a machine that has nothing of the rest of this repository: neither its packages nor torch."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import analysis
from analysis.simulate import simulate_runs

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("replay_sweeps", "hydra_plugins", "torch", "lightning", "hydra", "transformers"):
            raise ImportError(f"{name} is out of reach")

sys.meta_path.insert(0, Blocked())
"""


def run_alone(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process in which the rest of the repository and what it needs cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments], capture_output=True, text=True, check=False
    )


def test_the_rest_of_the_repository_is_out_of_reach() -> None:
    assert "replay_sweeps is out of reach" in run_alone("import replay_sweeps").stderr
    assert "torch is out of reach" in run_alone("import torch").stderr


def test_replay_analyze_runs_from_a_csv_to_the_report(tmp_path: Path) -> None:
    runs = simulate_runs(replay_tokens=(8192,), seeds=2, epochs=(8,))
    runs[["target_tokens", "replay_fraction", "target_loss"]].to_csv(tmp_path / "mine.csv", index=False)
    ran = run_alone(
        "from analysis.main import main; sys.exit(main(sys.argv[1:]))",
        str(tmp_path / "mine.csv"),
        "--replicates",
        "200",
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("On 8.19 thousand target tokens, replaying 75 % is worth")
    written = {path.name for path in (tmp_path / "mine_analysis").rglob("*")}
    assert {"multipliers.csv", "recommendation.json", "report.html", "report.md", "loss_against_replay.png"} <= written


def test_everything_public_and_every_module_can_be_imported() -> None:
    code = """
import importlib, pkgutil
import analysis
for name in analysis.__all__:
    getattr(analysis, name)
modules = [module.name for module in pkgutil.walk_packages(analysis.__path__, "analysis.")]
for name in modules:
    importlib.import_module(name)
print(len(modules))
"""
    ran = run_alone(code)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 30


def test_import_analysis_alone_loads_no_library() -> None:
    libraries = ("numpy", "scipy", "pandas", "matplotlib", "pyarrow", "jinja2", "wandb")
    ran = run_alone(f"import analysis, json; print(json.dumps(sorted(set(sys.modules) & set({libraries}))))")
    assert json.loads(ran.stdout) == []


def test_the_rooms_import_downwards_only() -> None:
    """Curves know arrays alone, findings know curves, and only what users start knows the report."""
    root = Path(analysis.__file__).parent
    forbidden = {
        "curves": ("analysis.findings", "analysis.report", "analysis.runs", "pandas"),
        "findings": ("analysis.report", "matplotlib"),
    }
    for room, higher in forbidden.items():
        for path in (root / room).glob("*.py"):
            names = [
                name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
            ]
            assert not [name for name in names if name.startswith(higher)], path
