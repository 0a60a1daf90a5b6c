"""The text of a study's runs: found or prepared, and whether there is enough of it for the grid."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replay_sweeps.config import RunConfig, SourceConfig, TokenizerConfig
from replay_sweeps.data.cleaning import text_key
from replay_sweeps.data.pipeline import CLEAN, SAMPLED, TOKENIZERS, TOKENS
from replay_sweeps.data.prepare import find_prepared, prepare_text
from replay_sweeps.data.prepared_text import PreparedSource, PreparedText, PreparedTokenizer
from replay_sweeps.data.sources.self_generated import KIND, documents_fingerprint
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.errors import UserError
from replay_sweeps.tree.planned_run import TextNames, data_schedule
from replay_sweeps.tree.target_size import with_target_tokens

PreparedSourceName = tuple[str, str]  # its name, and the fingerprint of its training store
TextKey = tuple[SourceConfig, TokenizerConfig, int, int]  # generic source, tokenizer, validation tokens, row length
Find = Callable[..., PreparedText | None]


def text_folder(store: Path) -> Path:
    """Where a store keeps its tokenised text."""
    return store / "text"


@dataclass(frozen=True)
class StudyTexts:
    """The prepared texts of a study, one for each generic source, tokenizer and row length that its runs use."""

    prepared: Mapping[TextKey, tuple[PreparedText, Mapping[SourceConfig, PreparedSource]]]
    runs: tuple[RunConfig, ...]  # one for each of the targets: what finds all of it again

    def of(self, run: RunConfig) -> tuple[PreparedSource, PreparedSource, int]:
        """A run's target and generic text, and the size of the vocabulary."""
        text, targets = self.prepared[_key(run)]
        tokenizer = run.model.tokenizer
        padded = 0 if tokenizer.path == "bpe" else tokenizer.vocab_size or 0
        return targets[run.target], text.generic, max(padded, text.tokenizer.vocab_size)

    def tokenizer(self, run: RunConfig) -> PreparedTokenizer:
        """The tokenizer of a run's texts."""
        return self.prepared[_key(run)][0].tokenizer

    def folders(self) -> frozenset[str]:
        """The folders, below that of all text, which the study would miss."""
        found: set[str] = set()
        for (generic, *_), (text, targets) in self.prepared.items():
            found.add(f"{TOKENIZERS}/{text.tokenizer.path.name}")
            found |= {f"{TOKENS}/{store.fingerprint}" for source in text.sources for store in source.stores}
            found |= {f"{CLEAN}/{text_key(source)}" for source in (generic, *targets)}
            found |= sampled_folders((generic, *targets))
        return frozenset(found)

    def stores(self) -> dict[str, TokenStore]:
        """All token stores by fingerprint."""
        sources = [source for text, _ in self.prepared.values() for source in text.sources]
        return {store.fingerprint: store for source in sources for store in source.stores}

    def summary(self) -> list[dict[str, Any]]:
        """What a report says of each source."""
        found: dict[str, dict[str, Any]] = {}
        for (generic, *_), (text, targets) in self.prepared.items():
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
    return _source(run.generic), run.model.tokenizer, run.evaluation.tokens, run.trainer.row_length


def _source(generic: SourceConfig) -> SourceConfig:
    """A source without what concerns its use in a run alone."""
    return replace(generic, order_seed=0, repeat=False)


def sampled_folders(sources: Iterable[SourceConfig]) -> frozenset[str]:
    """The folders, below that of all text, of what models write for these sources; the models are here."""
    return frozenset(f"{SAMPLED}/{documents_fingerprint(source)}" for source in sources if source.kind == KIND)


def find_texts(runs: Iterable[RunConfig], store: Path) -> StudyTexts | None:
    """The texts of the runs if all of them were prepared before; nothing is written."""
    return _gather(runs, find_prepared, store)


def prepare_texts(runs: Sequence[RunConfig], store: Path) -> StudyTexts:
    """The texts of the runs, prepared where they are not there yet.

    Raises UserError when a text cannot be read, or is too short for what the runs see of it.
    """
    texts = _gather(runs, prepare_text, store)
    assert texts is not None
    problems = list(too_short(with_target_tokens(runs, texts), texts))
    if problems:
        raise UserError(*problems)
    return texts


def _gather(runs: Iterable[RunConfig], prepare: Find, store: Path) -> StudyTexts | None:
    targets: dict[TextKey, dict[SourceConfig, RunConfig]] = {}
    for run in runs:
        targets.setdefault(_key(run), {}).setdefault(run.target, run)
    prepared = {}
    for key, wanted in targets.items():
        generic, tokenizer, *size = key
        text = prepare(generic, tuple(wanted), tokenizer, text_folder(store), *size)
        if text is None:
            return None
        prepared[key] = (text, dict(zip(wanted, text.targets, strict=True)))
    return StudyTexts(prepared, tuple(run for wanted in targets.values() for run in wanted.values()))


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
