"""Every command of the README runs, on a small scale."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_text
from tests.fixtures.pretrained_model import CHATML, write_small_model

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]
ROWS = ["trainer.row_length=32", "trainer.batch_rows=8", "trainer.compile=false", "trainer.threads=1"]
TINY = ["+scale=tiny", "schedule.total_tokens=32768", "evaluation.tokens=1024"]
TINY_PRETRAINED = [*ROWS, "schedule.target_tokens=1024", "evaluation.tokens=1024"]
TINY_STUDY = [*ROWS, "evaluation.tokens=1024", "target.max_documents=60", "target.validation_fraction=0.3"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a user has, under the names of the README; the commands run there one after another."""
    folder = tmp_path_factory.mktemp("readme")
    for seed, name in enumerate(("my-text", "TARGET", "GENERIC"), start=3):
        write_text(folder / name, seed, 200, 150)
    write_small_model(folder / "MODEL", sorted((folder / "GENERIC").iterdir()), 512, chat_template=CHATML)
    said = (text.read_text().split() for text in sorted((folder / "TARGET").iterdir()))
    talks = [[{"role": "user", "content": words[0]}, {"role": "assistant", "content": words[1]}] for words in said]
    (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    return folder


def shrunk(arguments: list[str]) -> list[str]:
    """A command of replay-sweep on a small scale."""
    if "study=finetune_pretrained" in arguments:
        return [*(item for item in arguments if not item.startswith("budget=")), "budget=2m", *TINY_STUDY]
    if "schedule=from_pretrained" in arguments:
        few = (
            ["generic.max_documents=200", "generic.document_tokens=48"] if "generic=self_generated" in arguments else []
        )
        return [*arguments, *TINY_PRETRAINED, *few]
    return [*arguments, *(extra for extra in TINY if extra not in arguments)]


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 13


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_readme_command_runs(line: str, workplace: Path) -> None:
    program, *arguments = shlex.split(line)
    if program == "replay-sweep":
        arguments = shrunk(arguments)
    if "RUN_ID" in arguments:
        runs = (workplace / "outputs" / "single" / "runs.csv").read_text().splitlines()
        arguments[arguments.index("RUN_ID")] = runs[1].split(",")[0]
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
