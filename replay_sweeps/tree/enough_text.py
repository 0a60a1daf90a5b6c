"""The text of a study, prepared, and whether there is enough of it for the runs of the grid."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from replay_sweeps.config import RunConfig
from replay_sweeps.data.prepare import prepare_text
from replay_sweeps.data.prepared_text import PreparedSource
from replay_sweeps.data.study_texts import StudyTexts, gather_texts
from replay_sweeps.errors import UserError
from replay_sweeps.schedule.of_run import data_schedule
from replay_sweeps.tree.target_size import with_target_tokens

PreparedSourceName = tuple[str, str]  # its name, and the fingerprint of its training store


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
