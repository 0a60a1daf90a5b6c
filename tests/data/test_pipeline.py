"""From sources to token stores: training text holds no validation document, and each store depends on its own input."""

import json
import math
from collections import Counter
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.near_duplicates import THRESHOLD, shingles
from replay_sweeps.data.pipeline import jensen_shannon_divergence
from replay_sweeps.data.prepare import prepare_text
from replay_sweeps.data.prepared_text import PreparedSource, PreparedText
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.data.tokenizers import loaded
from replay_sweeps.parallel import FEW
from tests.data.conftest import Prepare, Sources, WriteFolder, made_up_document, request
from tests.fixtures.conversations import made_up_conversation


def texts_of(prepared: PreparedText, store: TokenStore) -> list[str]:
    """The documents of a store, from its tokens alone."""
    files = {file.name: file.read_bytes() for file in prepared.tokenizer.path.iterdir()}
    tokenizer = loaded(files, prepared.tokenizer.vocab_size, prepared.tokenizer.end_of_text).tokenizer
    tokens = store.open()
    end = prepared.tokenizer.end_of_text
    parts = np.split(tokens, np.flatnonzero(tokens == end) + 1)
    return [tokenizer.decode(part[part != end].tolist()) for part in parts]


def fingerprints(source: PreparedSource) -> list[str]:
    return [store.fingerprint for store in source.stores]


def test_every_document_is_in_exactly_one_part_and_comes_back_whole(two_sources: Sources, prepare: Prepare) -> None:
    prepared = prepare(*two_sources, validation_tokens=10**9)
    for source, seeds in zip(prepared.sources, (range(150), range(1000, 1080)), strict=True):
        texts = [text for store in source.stores for text in texts_of(prepared, store) if text]
        assert sorted(texts) == sorted(made_up_document(seed) for seed in seeds)
        assert source.counts["train_documents"] + source.counts["validation_documents"] == len(seeds)
        assert source.counts["train_tokens"] == source.train.tokens


def test_no_validation_document_nearly_repeats_training_text_of_any_source(
    write_folder: WriteFolder, prepare: Prepare
) -> None:
    originals = [made_up_document(seed, words=200) for seed in range(200)]
    repeats = [f"{text}\nand a little more at the end" for text in originals[:120]]
    generic = SourceConfig("generic", "local", path=str(write_folder("g", originals)), validation_fraction=0.3)
    others = [*repeats, *(made_up_document(seed) for seed in range(5000, 5100))]
    target = SourceConfig("target", "local", path=str(write_folder("t", others)), validation_fraction=0.3)
    prepared = prepare(generic, target, validation_tokens=10**9)
    trained = [set(shingles(text)) for source in prepared.sources for text in texts_of(prepared, source.train) if text]
    for source in prepared.sources:
        assert source.counts["validation_near_duplicates_removed"] > 5
        for store in (source.selection, source.report):
            for text in filter(None, texts_of(prepared, store)):
                words = set(shingles(text))
                assert all(len(words & other) / len(words | other) < THRESHOLD for other in trained)


def count_batches(monkeypatch: pytest.MonkeyPatch) -> Counter[type[Executor]]:
    """The batches that are handed to processes and to threads from now on."""
    submitted: Counter[type[Executor]] = Counter()

    def counting(kind: type[Executor]) -> None:
        submit = kind.submit

        def counted(pool: Executor, *call: Any) -> Future[Any]:
            submitted[kind] += 1
            return submit(pool, *call)

        monkeypatch.setattr(kind, "submit", counted)

    counting(ProcessPoolExecutor)
    counting(ThreadPoolExecutor)
    return submitted


def test_stores_do_not_depend_on_the_number_of_workers(
    two_sources: Sources, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cleaning", "tokenizers"):
        monkeypatch.setattr(f"replay_sweeps.data.{module}.BATCH_CHARACTERS", 5000)  # so that there is work to share
    submitted = count_batches(monkeypatch)
    one = prepare(*two_sources, folder=tmp_path / "one", workers=1)
    assert not submitted
    three = prepare(*two_sources, folder=tmp_path / "three", workers=3)
    assert min(submitted[kind] for kind in (ProcessPoolExecutor, ThreadPoolExecutor)) > FEW
    assert one.tokenizer.fingerprint == three.tokenizer.fingerprint
    assert [fingerprints(source) for source in one.sources] == [fingerprints(source) for source in three.sources]


def test_a_training_store_depends_on_its_own_source_only(
    two_sources: Sources, write_folder: WriteFolder, prepare: Prepare
) -> None:
    generic, target = two_sources
    whole = 64_000  # so many validation tokens that no document is sampled in part
    alone, together = (prepare(*of, validation_tokens=whole) for of in ((generic,), (generic, target)))
    assert alone.generic.train == together.generic.train
    assert fingerprints(alone.generic) == fingerprints(together.generic)  # nothing had to be removed
    held_out = [text for text in texts_of(alone, alone.generic.selection)[:-1] if text]
    leak = [f"{text} and more" for text in held_out] + [made_up_document(seed) for seed in range(7000, 7080)]
    other = SourceConfig("other", "local", path=str(write_folder("leak", leak)), validation_fraction=0.2)
    leaked = prepare(generic, other, validation_tokens=whole)
    assert leaked.generic.counts["validation_near_duplicates_removed"] > 0
    assert leaked.generic.train == alone.generic.train


def test_a_longer_validation_half_begins_with_the_shorter_one(two_sources: Sources, prepare: Prepare) -> None:
    short, long = (prepare(*two_sources, validation_tokens=tokens) for tokens in (500, 1500))
    for source, longer in zip(short.sources, long.sources, strict=True):
        assert (source.selection.tokens, longer.report.tokens) == (500, 1500)
        assert np.array_equal(source.selection.open(), longer.selection.open()[:500])
        assert source.train == longer.train


def test_a_source_is_cleaned_once_whatever_the_tokenizer(
    two_sources: Sources, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(*two_sources)
    monkeypatch.setattr("replay_sweeps.data.cleaning.documents", lambda *_: pytest.fail("read again"))
    assert prepare(*two_sources, tokenizer=TokenizerConfig("bpe", 350)).tokenizer.vocab_size == 350


def test_validation_halves_do_not_depend_on_the_order_of_the_source(
    write_folder: WriteFolder, prepare: Prepare, two_sources: Sources
) -> None:
    backwards = write_folder("backwards", [made_up_document(seed) for seed in reversed(range(1000, 1080))])
    other = SourceConfig("target", "local", path=str(backwards), validation_fraction=0.2)
    first, second = (prepare(two_sources[0], target).targets[0] for target in (two_sources[1], other))
    assert first.train != second.train
    assert (first.selection, first.report) == (second.selection, second.report)


def test_the_divergence_is_that_of_jensen_and_shannon_in_nats() -> None:
    first, second = np.array([3, 1, 0]), np.array([0, 0, 9])
    assert jensen_shannon_divergence(first, first) == 0
    assert math.isclose(jensen_shannon_divergence(first, second), math.log(2))


def chat(path: Path, **more: Any) -> SourceConfig:
    return SourceConfig("mine", "local", path=str(path), format="chat", **more)


def test_what_becomes_of_conversations_is_counted_and_their_rows_depend_on_no_other_text(
    chat_model: Path, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    silent = [[{"role": "user", "content": f"question {number} without an answer"}] for number in range(40)]
    told = [made_up_conversation(seed) for seed in range(300)]
    lines = [json.dumps({"messages": messages}) for messages in [*silent, *told, told[0]]]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines))
    target = chat(tmp_path / "chat.jsonl", validation_fraction=0.2)
    generic = SourceConfig("generic", "local", path=str(texts[0]))
    tokenizer = TokenizerConfig(str(chat_model))

    def prepared(*sources: SourceConfig, row_length: int, workers: int = 1) -> Any:
        more: dict[str, Any] = {"tokenizer": tokenizer, "validation_tokens": 1024, "row_length": row_length}
        return prepare_text(request(*sources, folder=tmp_path / f"store{workers}", **more), workers=workers)

    both = prepared(generic, target, row_length=64)
    counts = both.targets[0].counts
    assert counts["documents"] == 341 and counts["exact_duplicates_dropped"] == 1
    dropped = counts["conversations_without_response_dropped"] + counts["conversations_cut_before_response_dropped"]
    assert 20 < dropped < 45 and counts["packed_conversations"] + dropped == counts["train_documents"]
    assert both.targets[0].report.tokens % 64 == 0 and both.targets[0].report.packed
    assert prepared(target, row_length=64).generic.train == both.targets[0].train
    assert (
        prepared(generic, target, row_length=64, workers=2).targets[0].train.fingerprint
        == both.targets[0].train.fingerprint
    )
    longer = prepared(generic, target, row_length=128)
    assert longer.generic == both.generic
    assert longer.targets[0].train.fingerprint != both.targets[0].train.fingerprint
