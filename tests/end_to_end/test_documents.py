"""Every command of the documents runs, on a small scale; those that can't run here are named here, with the reason."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_text
from tests.fixtures.pretrained_model import CHATML, write_small_model
from tests.fixtures.processes import PROGRAMS, inherited, run_forked
from tests.fixtures.shared import MadeOnce, share_text

pytestmark = pytest.mark.slow

DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("[A-Z]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = re.compile(r"(replay-\w+|make|python3?|pip|source)\s")

# what a command holds that can't run here → why; make's targets are looked up in the Makefile
NOT_RUN = {
    "source .venv/bin/activate": "the tests run in it already",
    "pip install": "needs a network; the Makefile installs the same extras",
    "python -m replay_sweeps.models.demo": "test_demo_model.py writes the same model",
    "python -m pytest": "these are the tests",
    "python -m benchmarks": "minutes to hours",
    "python benchmarks/": "minutes to hours",
    "python notebooks/": "run by hand",
    "wandb:ENTITY/PROJECT": "needs a network; tests/analysis/test_wandb_table.py has a stand-in",
    "make ": "minutes; what it runs is run here by itself",
}
# these are planned with quickstart in the place of NAME
PLANNED = {
    "hydra/launcher=submitit_slurm": "needs Slurm; launchers/test_slurm.py has a stand-in",
    "ray.init.address=auto": "needs a Ray cluster",
    "trainer.devices=8": "needs eight GPUs",
}

ROWS = ["trainer.row_length=32", "trainer.batch_rows=8", "trainer.compile=false", "trainer.threads=1"]
TINY = ["+scale=tiny", "schedule.total_tokens=32768", "evaluation.tokens=1024"]
TINY_PRETRAINED = [*ROWS, "schedule.target_tokens=1024", "evaluation.tokens=1024"]
TINY_STUDY = [*ROWS, "evaluation.tokens=1024", "target.max_documents=30", "target.validation_fraction=0.3"]


@dataclass(frozen=True)
class Fenced:
    """A block of a document, between fences."""

    document: str
    language: str
    text: str

    def commands(self) -> list[str]:
        """The commands in it: each line of a shell's block, and what looks like one in a block of another kind."""
        lines = [line.strip().removeprefix("$ ") for line in self.text.replace("\\\n", " ").splitlines()]
        shell = self.language in ("sh", "bash", "shell", "console")
        return [line for line in lines if PROGRAM.match(line) or (shell and line and not line.startswith("#"))]


BLOCKS = [
    Fenced(str(file.relative_to(ROOT)), language, text)
    for file in dict.fromkeys(DOCUMENTS)
    for language, text in re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", file.read_text(), re.DOTALL | re.MULTILINE)
]
COMMANDS = [(block.document, command) for block in BLOCKS for command in block.commands()]
RUN = {
    document: [line for name, line in COMMANDS if name == document and not any(part in line for part in NOT_RUN)]
    for document in dict.fromkeys(name for name, _ in COMMANDS)
}
CODE = [(block.document, block.text) for block in BLOCKS if block.language == "python"]


@pytest.fixture(scope="session")
def belongings(made_once: MadeOnce) -> Path:
    """What a user has, under the names of the documents, and the output of a small study."""

    def make(folder: Path) -> None:
        for seed, name in enumerate(("my-text", "TARGET", "GENERIC"), start=3):
            write_text(folder / name, seed, 200, 150)
        write_small_model(folder / "MODEL", sorted((folder / "GENERIC").iterdir()), 512, chat_template=CHATML)
        said = (text.read_text().split() for text in sorted((folder / "TARGET").iterdir()))
        talks = [[{"role": "user", "content": words[0]}, {"role": "assistant", "content": words[1]}] for words in said]
        (folder / "chat.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
        ran = run_forked(["study=quickstart", *TINY, "paths.output=outputs/tiny"], folder=folder)
        assert ran.returncode == 0, ran.stderr
        shutil.copy(folder / "outputs" / "tiny" / "runs.csv", folder / "my-runs.csv")

    return made_once("belongings", make)


@pytest.fixture
def workplace(belongings: Path, tmp_path: Path) -> Path:
    """A folder with all of that, in which the commands of one document run one after another.

    The text of study=quickstart is prepared in the stores that the documents name: it takes longer than all the rest.
    """
    folder = shutil.copytree(belongings, tmp_path / "workplace", symlinks=True)  # W&B leaves links that lead nowhere
    for output in ("", "pool"):
        share_text(folder / "outputs" / "tiny", folder / "outputs" / output)
    return folder


def shrunk(arguments: list[str]) -> list[str]:
    """A command of replay-sweep on a small scale; a plan is small."""
    if any(part in item for item in arguments for part in PLANNED):
        named = ("study=quickstart" if item == "study=NAME" else item for item in arguments)
        return [*named, "trainer.batch_rows=16", "plan=true"]
    if any(item.startswith("plan=") for item in arguments):
        return arguments
    if "study=finetune_pretrained" in arguments:
        return [*(item for item in arguments if not item.startswith("budget=")), "budget=2m", *TINY_STUDY]
    if "schedule=from_pretrained" in arguments:
        few = ["generic.max_documents=200", "generic.document_tokens=48"]
        return [*arguments, *TINY_PRETRAINED, *(few if "generic=self_generated" in arguments else [])]
    return [*arguments, *(extra for extra in TINY if extra not in arguments)]


def test_the_documents_have_commands() -> None:
    lines = [line for lines in RUN.values() for line in lines]
    assert len(lines) >= 13
    assert {line.split()[0] for line in lines} == {"replay-sweep", "replay-analyze", "replay-store"}


def test_what_the_documents_make_is_in_the_makefile() -> None:
    for words in (shlex.split(line, comments=True) for _, line in COMMANDS if line.startswith("make ")):
        [target] = [word for word in words[1:] if "=" not in word]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("document", [document for document, lines in RUN.items() if lines])
def test_the_commands_of_a_document_run_in_their_order(document: str, workplace: Path) -> None:
    for line in RUN[document]:
        program, *arguments = shlex.split(line.replace("outputs/quickstart", "outputs/tiny"), comments=True)
        assert program in PROGRAMS, f"{line}: it is no command of this package, nor named in NOT_RUN"
        if program == "replay-sweep":
            arguments = shrunk(arguments)
        if "RUN_ID" in arguments:
            runs = (workplace / "outputs" / "single" / "runs.csv").read_text().splitlines()
            arguments[arguments.index("RUN_ID")] = runs[1].split(",")[0]
        ran = run_forked(arguments, program, folder=workplace)
        assert ran.returncode == 0, f"{line}\n{ran.stderr}"
        assert ran.stdout, line


@pytest.mark.parametrize(
    ("program", "given"),
    [
        ("replay-sweep", ["study=quickstart", *TINY, "paths.output=outputs/tiny"]),
        ("replay-analyze", ["outputs/tiny"]),
        ("replay-store", ["list", "--store", "outputs/tiny/store"]),
    ],
)
def test_each_command_is_installed_and_begins_in_a_process_of_its_own(
    program: str, given: list[str], workplace: Path
) -> None:
    script = str(Path(sys.executable).parent / program)
    ran = subprocess.run([script, *given], cwd=workplace, capture_output=True, text=True, env=inherited(), timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


@pytest.mark.parametrize(("document", "code"), CODE, ids=[document for document, _ in CODE])
def test_the_python_of_the_documents_runs(
    document: str, code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    exec(compile(code.replace("outputs/quickstart", "outputs/tiny"), document, "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert ("print(" in code) == bool(printed)
    if document == "README.md":
        assert "×" in printed  # what replay is worth
