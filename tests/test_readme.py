"""Every command of the README runs, on a small scale."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import write_text

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
TINY = ["+scale=tiny", "schedule.total_tokens=32768", "evaluation.tokens=1024"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's text in it, in which the commands run one after another."""
    folder = tmp_path_factory.mktemp("readme")
    write_text(folder / "my-text", 3, 200, 150)
    return folder


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_readme_command_runs(line: str, workplace: Path) -> None:
    program, *arguments = shlex.split(line)
    if program == "replay-sweep":
        arguments += [extra for extra in TINY if extra not in arguments]
    ran = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=workplace,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


@pytest.mark.slow
def test_the_python_of_the_readme_runs_on_the_quickstart_table(workplace: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = code.replace("outputs/quickstart", "outputs/tiny")
    ran = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "×" in ran.stdout
