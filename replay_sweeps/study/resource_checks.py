"""What runs need around them: texts that can be read, a model to write one, a chat template, folders to write into.

Each function yields (setting, what is wrong). Runs share most of this, so each distinct need is looked at once.
"""

from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from replay_sweeps.config import PathsConfig, RunConfig, SourceConfig, StudyConfig, TokenizerConfig
from replay_sweeps.data.chat_template import check_chat_template
from replay_sweeps.data.sources import self_generated
from replay_sweeps.data.sources.documents import check_source
from replay_sweeps.data.tokenizers import check_template_file
from replay_sweeps.study.checks import Problem, unwritable

Check = Callable[..., Iterator[Problem]]
Need = tuple[Check, tuple[Hashable, ...]]  # a check and what it is called with
LONGEST_NAME = 100  # bytes of a study's name


def needs(run: RunConfig) -> tuple[Need, ...]:
    """What a run needs around it."""
    return (
        (text_problems, ("target", run.target)),
        (text_problems, ("generic", run.generic)),
        (tokenizer_problems, (run.model.tokenizer, run.packed)),
        (folder_problems, (run.paths, run.study, run.plan)),
    )


def text_problems(role: str, source: SourceConfig) -> Iterator[Problem]:
    """Why the text of a role, target or generic, cannot be read."""
    if source.kind == self_generated.KIND:
        yield from sampling_problems(role, source)
    else:
        for message in check_source(source):
            yield f"{role}.path", message


def sampling_problems(role: str, source: SourceConfig) -> Iterator[Problem]:
    """Why a model cannot write the text of a role."""
    for name, message in self_generated.check(source):
        yield f"{role}.{name}", message


def tokenizer_problems(tokenizer: TokenizerConfig, packed: bool) -> Iterator[Problem]:
    """Why a tokenizer's template cannot be used."""
    for message in check_template_file(tokenizer):
        yield "model.tokenizer.chat_template", message
    if packed:
        for name, message in check_chat_template(tokenizer):
            yield f"model.tokenizer.{name}", message


def folder_problems(paths: PathsConfig, study: StudyConfig, plan: str) -> Iterator[Problem]:
    """Why a study cannot write into its folders; a plan writes nothing there."""
    if not study.name or set(study.name) & set("/\\") or study.name.startswith(".") or not study.name.isprintable():
        yield "study.name", "must be a plain folder name"
    elif len(study.name.encode()) > LONGEST_NAME:
        yield "study.name", f"must be at most {LONGEST_NAME} bytes: names of files are made of it"
    if plan != "false":
        return
    for name, folder in (("paths.output", paths.output or "outputs"), ("paths.store", paths.store or "outputs")):
        reason = unwritable(Path(folder))
        if reason:
            yield name, reason
