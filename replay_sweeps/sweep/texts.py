"""The text of a study's runs: found or prepared, and whether there is enough of it for the grid."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replay_sweeps.config import RunConfig, SourceConfig, TokenizerConfig
from replay_sweeps.data.prepare import find_prepared, prepare_text
from replay_sweeps.data.prepared import PreparedSource, PreparedText
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.errors import UserError
from replay_sweeps.sweep.plan import TextNames, data_schedule

TextKey = tuple[SourceConfig, TokenizerConfig, int]  # generic source, tokenizer, validation tokens
Find = Callable[..., PreparedText | None]


def text_folder(store: Path) -> Path:
    """Where a store keeps its tokenised text."""
    return store / "text"


@dataclass(frozen=True)
class StudyTexts:
    """The prepared texts of a study, one for each generic source and tokenizer that its runs use."""

    prepared: Mapping[TextKey, tuple[PreparedText, Mapping[SourceConfig, PreparedSource]]]

    def of(self, run: RunConfig) -> tuple[PreparedSource, PreparedSource, int]:
        """A run's target and generic text, and the size of the vocabulary."""
        text, targets = self.prepared[_key(run)]
        tokenizer = run.model.tokenizer
        padded = 0 if tokenizer.path == "bpe" else tokenizer.vocab_size or 0
        return targets[run.target], text.generic, max(padded, text.tokenizer.vocab_size)

    def stores(self) -> dict[str, TokenStore]:
        """All token stores by fingerprint."""
        sources = [source for text, _ in self.prepared.values() for source in text.sources]
        return {store.fingerprint: store for source in sources for store in source.stores}

    def summary(self) -> list[dict[str, Any]]:
        """What a report says of each source."""
        found: dict[str, dict[str, Any]] = {}
        for (generic, _, _), (text, targets) in self.prepared.items():
            pairs = [("generic", generic, text.generic), *(("target", c, p) for c, p in targets.items())]
            for role, config, source in pairs:
                found[f"{role} {config.name}"] = {
                    "name": config.name,
                    "role": role,
                    "kind": config.kind,
                    **source.counts,
                    "train_fingerprint": source.train.fingerprint,
                }
        return list(found.values())


def _key(run: RunConfig) -> TextKey:
    return _source(run.generic), run.model.tokenizer, run.evaluation.tokens


def _source(generic: SourceConfig) -> SourceConfig:
    """A source without what concerns its use in a run alone."""
    return replace(generic, order_seed=0, repeat=False)


def find_texts(runs: Iterable[RunConfig], store: Path) -> StudyTexts | None:
    """The texts of the runs if all of them were prepared before; nothing is written."""
    return _gather(runs, find_prepared, store)


def prepare_texts(runs: Sequence[RunConfig], store: Path) -> StudyTexts:
    """The texts of the runs, prepared where they are not there yet.

    Raises UserError when a text cannot be read, or is too short for what the runs see of it.
    """
    texts = _gather(runs, prepare_text, store)
    assert texts is not None
    problems = dict.fromkeys(problem for run in runs for problem in too_short(run, texts))
    if problems:
        raise UserError(*problems)
    return texts


def _gather(runs: Iterable[RunConfig], prepare: Find, store: Path) -> StudyTexts | None:
    targets: dict[TextKey, dict[SourceConfig, None]] = {}
    for run in runs:
        targets.setdefault(_key(run), {})[run.target] = None
    prepared = {}
    for key, wanted in targets.items():
        generic, tokenizer, tokens = key
        text = prepare(generic, tuple(wanted), tokenizer, text_folder(store), tokens)
        if text is None:
            return None
        prepared[key] = (text, dict(zip(wanted, text.targets, strict=True)))
    return StudyTexts(prepared)


def too_short(run: RunConfig, texts: StudyTexts) -> Iterator[str]:
    """One line for each text that has fewer tokens than the run sees of it."""
    target, generic, _ = texts.of(run)
    data, length = data_schedule(run), run.trainer.row_length
    generic_rows = data.total_rows - data.exposures
    if data.target_rows > target.train.rows(length):
        yield (
            f"target {run.target.name} has {target.train.tokens:,} training tokens, "
            f"{target.train.rows(length):,} rows of {length}; the grid needs {data.target_rows * length:,}: give more text, "
            "or a smaller schedule.target_tokens or schedule.target_fraction"
        )
    if generic_rows > generic.train.rows(length) and not run.generic.repeat:
        yield (
            f"generic {run.generic.name} has {generic.train.tokens:,} training tokens, "
            f"{generic.train.rows(length):,} rows of {length}; the grid needs {generic_rows * length:,}: give more text, "
            "a smaller schedule.total_tokens, or generic.repeat=true"
        )
    for role, source in (("target", target), ("generic", generic)):
        for half in (source.selection, source.report):
            if not half.rows(length):
                yield (
                    f"{role} {source.name} has only {half.tokens:,} tokens in a validation half, less than a row of "
                    f"{length}: give more text or a larger {role}.validation_fraction"
                )
                break


def names_of(run: RunConfig, texts: StudyTexts | None) -> tuple[TextNames, TextNames, int]:
    """The fingerprints of a run's target and generic text and the vocabulary's size; stand-ins where unknown."""
    if texts is None:
        stand_in = [
            TextNames(*(f"{source}/{part}" for part in ("train", "selection", "report")))
            for source in (run.target, run.generic)
        ]
        return stand_in[0], stand_in[1], run.model.tokenizer.vocab_size or 32_768
    target, generic, vocab_size = texts.of(run)
    names = [TextNames(*(store.fingerprint for store in source.stores)) for source in (target, generic)]
    return names[0], names[1], vocab_size
