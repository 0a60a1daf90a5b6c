"""The text of a study's runs, found or prepared."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from replay_sweeps.config import RunConfig, SourceConfig, TokenizerConfig
from replay_sweeps.data.pipeline import CLEAN, SAMPLED, TOKENIZERS, TOKENS
from replay_sweeps.data.prepare import find_prepared
from replay_sweeps.data.prepared_text import PreparedSource, PreparedText, PreparedTokenizer, TextFingerprints
from replay_sweeps.data.sources.self_generated import KIND, documents_fingerprint
from replay_sweeps.data.text_keys import TextRequest, text_key
from replay_sweeps.data.token_store import TokenStore

TextKey = tuple[SourceConfig, TokenizerConfig, int, int]  # generic source, tokenizer, validation tokens, row length
Find = Callable[[TextRequest], PreparedText | None]


def text_folder(store: Path) -> Path:
    """Where a store keeps its text: cleaned text, tokenizers, tokens, and what models wrote."""
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
    return gather_texts(runs, find_prepared, store)


def gather_texts(runs: Iterable[RunConfig], prepare: Find, store: Path) -> StudyTexts | None:
    """The texts of the runs, each found or made by `prepare`; None where one is not found."""
    targets: dict[TextKey, dict[SourceConfig, RunConfig]] = {}
    for run in runs:
        targets.setdefault(_key(run), {}).setdefault(run.target, run)
    prepared = {}
    for key, wanted in targets.items():
        generic, tokenizer, validation_tokens, row_length = key
        text = prepare(
            TextRequest(
                generic=generic,
                targets=tuple(wanted),
                tokenizer=tokenizer,
                folder=text_folder(store),
                validation_tokens=validation_tokens,
                row_length=row_length,
            )
        )
        if text is None:
            return None
        prepared[key] = (text, dict(zip(wanted, text.targets, strict=True)))
    return StudyTexts(prepared, tuple(run for wanted in targets.values() for run in wanted.values()))


def fingerprints_of(run: RunConfig, texts: StudyTexts | None) -> tuple[TextFingerprints, TextFingerprints, int]:
    """The fingerprints of a run's target and generic text and the vocabulary's size; stand-ins where unknown."""
    if texts is None:
        stand_in = [
            TextFingerprints(*(f"{source}/{part}" for part in ("train", "selection", "report")))
            for source in (run.target, run.generic)
        ]
        return stand_in[0], stand_in[1], run.model.tokenizer.vocab_size or 32_768
    target, generic, vocab_size = texts.of(run)
    names = [TextFingerprints(*(store.fingerprint for store in source.stores)) for source in (target, generic)]
    return names[0], names[1], vocab_size
