"""Target sizes given as a share of the target's own text: counted when it is prepared, estimated before."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from replay_sweeps.checks import check_counts
from replay_sweeps.config import RunConfig, SourceConfig
from replay_sweeps.data.installed import package_folder
from replay_sweeps.data.local_files import COMPRESSED, readable_files
from replay_sweeps.data.rows import rows_of
from replay_sweeps.data.sources import INSTALLED
from replay_sweeps.errors import UserError

if TYPE_CHECKING:
    from replay_sweeps.sweep.texts import StudyTexts

BYTES_A_TOKEN = 4  # of English prose and a tokenizer of tens of thousands of tokens
COMPRESSION = 3  # of text, by gzip or zstd
UNSEEN_TOKENS = 1_000_000  # of a text whose size cannot be seen before it is fetched


def with_target_tokens(runs: Sequence[RunConfig], texts: "StudyTexts | None") -> tuple[RunConfig, ...]:
    """The runs with N filled in where it is given as a share: whole rows, rounded down, one at least.

    Without `texts` the size of the target's text is estimated. Of runs that come out alike the first stays. Raises
    UserError where a run of that size cannot be.
    """
    rows: dict[tuple[SourceConfig, int], int] = {}
    found: dict[RunConfig, RunConfig] = {}
    problems: dict[str, None] = {}
    for run in runs:
        share, length = run.schedule.target_share, run.trainer.row_length
        if share is not None:
            if (run.target, length) not in rows:
                known = texts.of(run)[0].train.rows(length) if texts else estimated_tokens(run.target) // length
                rows[run.target, length] = known
            tokens = max(1, int(share * rows[run.target, length])) * length
            run = replace(run, schedule=replace(run.schedule, target_tokens=tokens))
            for name, message in check_counts(run):
                problems[f"{name} (with schedule.target_share={share}, N = {tokens:,}): {message}"] = None
        found.setdefault(replace(run, schedule=replace(run.schedule, target_share=None)), run)
    if problems:
        raise UserError(*problems)
    return tuple(found.values())


def estimates(runs: Iterable[RunConfig]) -> Iterator[str]:
    """What a plan says of sizes that are estimated, since the target's text is not tokenised yet."""
    for target in dict.fromkeys(run.target for run in runs if run.schedule.target_share is not None):
        yield (
            f"N is an estimate: {target.name} is taken to have about {estimated_tokens(target):,} training tokens "
            "until it is tokenised"
        )


def estimated_tokens(source: SourceConfig) -> int:
    """Training tokens of a text, by the size of its files."""
    if source.kind == "local":
        files = [file for _, file in readable_files(Path(source.path or "").expanduser(), rows_of(source))]
        size = sum(file.stat().st_size * (COMPRESSION if file.suffix.lower() in COMPRESSED else 1) for file in files)
    elif source.kind in INSTALLED:
        folders = [folder for package in INSTALLED[source.kind][0] if (folder := package_folder(package))]
        size = sum(file.stat().st_size for folder in folders for file in Path(folder).rglob("*.py"))
    else:
        return UNSEEN_TOKENS
    return int(size / BYTES_A_TOKEN * (1 - source.validation_fraction))
