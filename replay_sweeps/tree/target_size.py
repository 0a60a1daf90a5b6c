"""Target sizes given as a share of the target's own text: counted when it is prepared, estimated before."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from replay_sweeps.config import RunConfig, SourceConfig
from replay_sweeps.data.sources.documents import INSTALLED
from replay_sweeps.data.sources.installed_packages import python_files
from replay_sweeps.data.sources.local_files import COMPRESSED, is_one_document, readable_files
from replay_sweeps.data.sources.table_rows import table_reader
from replay_sweeps.data.study_texts import StudyTexts
from replay_sweeps.errors import UserError
from replay_sweeps.study.checks import check_counts

BYTES_A_TOKEN = 4  # of English prose and a tokenizer of tens of thousands of tokens
COMPRESSION = 3  # of text, by gzip or zstd
UNSEEN_TOKENS = 1_000_000  # of a text whose size cannot be seen before it is fetched


def with_target_tokens(runs: Sequence[RunConfig], texts: StudyTexts | None) -> tuple[RunConfig, ...]:
    """The runs with N filled in where it is given as a share: whole rows, rounded down, one at least.

    Without `texts` the size of the target's text is estimated, and taken to be no larger than the runs have room for:
    an estimate refuses no run. Duplicate runs are dropped; the first is kept. Raises UserError where a run of that size
    cannot be.
    """
    sharing: dict[tuple[SourceConfig, int], list[RunConfig]] = {}
    for run in runs:
        if run.schedule.target_share is not None:
            sharing.setdefault((run.target, run.trainer.row_length), []).append(run)
    rows = {
        (target, length): texts.of(some[0])[0].train.rows(length) if texts else _estimated_rows(target, length, some)
        for (target, length), some in sharing.items()
    }
    found: dict[RunConfig, RunConfig] = {}
    problems: dict[str, None] = {}
    for run in runs:
        share = run.schedule.target_share
        if share is not None:
            run = _sized(run, rows[run.target, run.trainer.row_length])
            for name, message in check_counts(run):
                tokens = run.schedule.target_tokens
                problems[f"{name} (with schedule.target_share={share}, N = {tokens:,}): {message}"] = None
        found.setdefault(replace(run, schedule=replace(run.schedule, target_share=None)), run)
    if problems:
        raise UserError(*problems)
    return tuple(found.values())


def _sized(run: RunConfig, rows: int) -> RunConfig:
    """A run with its share of so many rows."""
    assert run.schedule.target_share is not None
    tokens = max(1, int(run.schedule.target_share * rows)) * run.trainer.row_length
    return replace(run, schedule=replace(run.schedule, target_tokens=tokens))


def _estimated_rows(target: SourceConfig, length: int, runs: Sequence[RunConfig]) -> int:
    """Training rows of a text that is not tokenised yet, or as many as all of the runs have room for."""
    rows = estimated_tokens(target) // length
    return bisect(range(1, rows + 1), False, key=lambda some: any(any(check_counts(_sized(r, some))) for r in runs))


def estimates(runs: Iterable[RunConfig]) -> Iterator[str]:
    """What a plan says of sizes that are estimated, since the target's text is not tokenised yet."""
    sharing: dict[SourceConfig, list[RunConfig]] = {}
    for run in runs:
        if run.schedule.target_share is not None:
            sharing.setdefault(run.target, []).append(run)
    for target, alike in sharing.items():
        tokens = estimated_tokens(target)
        unseen = target.max_documents is not None and not _one_document_a_file(target)
        yield (
            f"N is an estimate: {target.name} is taken to have about {tokens:,} training tokens until it is tokenised"
            + (", whatever target.max_documents leaves of them" if unseen else "")
        )
        run = max(alike, key=lambda run: run.schedule.target_tokens or 0)
        if _sized(run, tokens // run.trainer.row_length) != run:
            yield (
                f"if {target.name} has that many tokens, schedule.target_share={run.schedule.target_share} does not "
                f"fit into schedule.total_tokens={run.schedule.total_tokens}: the plan is of N = "
                f"{run.schedule.target_tokens:,}"
            )


def estimated_tokens(source: SourceConfig) -> int:
    """Training tokens of a text, by the size of its files; of the first ones, where they are a document each."""
    files = _files_of(source)
    if not files:
        return UNSEEN_TOKENS
    read = files[: source.max_documents] if _one_document_a_file(source) else files
    size = sum(file.stat().st_size * (COMPRESSION if file.suffix.lower() in COMPRESSED else 1) for file in read)
    return int(size / BYTES_A_TOKEN * (1 - source.validation_fraction))


def _files_of(source: SourceConfig) -> list[Path]:
    """The files that a text is read from, in their order; none where they cannot be seen before they are fetched."""
    if source.kind == "local":
        return [file for _, file in readable_files(Path(source.path or "").expanduser(), table_reader(source))]
    if source.kind in INSTALLED:
        packages, _, tests = INSTALLED[source.kind]
        return [file for package in packages for file in python_files(package, tests)]
    return []


def _one_document_a_file(source: SourceConfig) -> bool:
    if source.kind == "local":
        return all(map(is_one_document, _files_of(source)))
    return source.kind in INSTALLED and INSTALLED[source.kind][1] == "sources"
