"""Target sizes given as a share of the target's own text: counted when it is prepared, estimated before."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from replay_sweeps.config import RunConfig, SourceConfig
from replay_sweeps.data.prepare import prepare_text
from replay_sweeps.data.prepared_text import PreparedSource
from replay_sweeps.data.sources.documents import INSTALLED
from replay_sweeps.data.sources.installed_packages import python_files
from replay_sweeps.data.sources.local_files import COMPRESSED, is_one_document, readable_files
from replay_sweeps.data.sources.table_rows import table_reader
from replay_sweeps.data.study_texts import StudyTexts, gather_texts
from replay_sweeps.errors import UserError
from replay_sweeps.schedule.of_run import data_schedule
from replay_sweeps.study.checks import check_counts

PreparedSourceName = tuple[str, str]  # its name, and the fingerprint of its training store
BYTES_A_TOKEN = 4  # of English prose and a tokenizer of tens of thousands of tokens
COMPRESSION = 3  # of text, by gzip or zstd
UNSEEN_TOKENS = 1_000_000  # of a text whose size cannot be seen before it is fetched


def with_target_tokens(runs: Sequence[RunConfig], texts: StudyTexts | None) -> tuple[RunConfig, ...]:
    """The runs with N filled in where it is given as a share: whole rows, rounded down, one at least.

    Without `texts` the size of the target's text is estimated, and taken to be no larger than the runs have room for:
    an estimate refuses no run. Of runs that come out alike the first stays. Raises UserError where a run of that size
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
    files = _files(source)
    if not files:
        return UNSEEN_TOKENS
    read = files[: source.max_documents] if _one_document_a_file(source) else files
    size = sum(file.stat().st_size * (COMPRESSION if file.suffix.lower() in COMPRESSED else 1) for file in read)
    return int(size / BYTES_A_TOKEN * (1 - source.validation_fraction))


def _files(source: SourceConfig) -> list[Path]:
    """The files that a text is read from, in their order; none where they cannot be seen before they are fetched."""
    if source.kind == "local":
        return [file for _, file in readable_files(Path(source.path or "").expanduser(), table_reader(source))]
    if source.kind in INSTALLED:
        packages, _, tests = INSTALLED[source.kind]
        return [file for package in packages for file in python_files(package, tests)]
    return []


def _one_document_a_file(source: SourceConfig) -> bool:
    if source.kind == "local":
        return all(map(is_one_document, _files(source)))
    return source.kind in INSTALLED and INSTALLED[source.kind][1] == "sources"


def prepare_texts(runs: Sequence[RunConfig], store: Path) -> StudyTexts:
    """The texts of the runs, prepared where they are not there yet.

    Raises UserError when a text cannot be read, or is too short for what the runs see of it.
    """
    texts = gather_texts(runs, prepare_text, store)
    assert texts is not None
    problems = list(too_short(with_target_tokens(runs, texts), texts))
    if problems:
        raise UserError(*problems)
    return texts


def too_short(runs: Iterable[RunConfig], texts: StudyTexts) -> Iterator[str]:
    """One line for each text that has fewer tokens than the grid sees of it."""
    needed: dict[tuple[str, PreparedSourceName, int], int] = {}
    sources: dict[PreparedSourceName, PreparedSource] = {}
    for run in runs:
        target, generic, _ = texts.of(run)
        data, length = data_schedule(run), run.trainer.row_length
        wants = [("target", target, data.target_rows)]
        wants.append(("generic", generic, 0 if run.generic.repeat else data.total_rows - data.exposures))
        for role, source, rows in wants:
            name = (source.name, source.train.fingerprint)
            sources[name] = source
            needed[role, name, length] = max(rows, needed.get((role, name, length), 0))
    smaller = {
        "target": "a smaller schedule.target_tokens, schedule.target_fraction or schedule.target_share",
        "generic": "a smaller schedule.total_tokens, or generic.repeat=true",
    }
    for (role, name, length), rows in needed.items():
        source = sources[name]
        here = source.train.rows(length)
        if rows > here:
            yield (
                f"{role} {source.name} has {source.train.tokens:,} training tokens ({here:,} rows of {length}); "
                f"the grid needs {rows * length:,} ({rows:,} rows): give more text, or {smaller[role]}"
            )
        tokens = min(source.selection.tokens, source.report.tokens)
        if tokens < length:
            yield (
                f"{role} {source.name} has only {tokens:,} tokens in a validation half, less than a row of {length}: "
                f"give more text or a larger {role}.validation_fraction"
            )
