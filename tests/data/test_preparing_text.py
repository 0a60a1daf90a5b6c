"""Text becomes stores that depend on what they should, and no validation document is in training text."""

import math
import subprocess
import sys
from collections import Counter
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.cleaning import clean_text, part_of
from replay_sweeps.data.encoder import sample_of_documents
from replay_sweeps.data.near_duplicates import THRESHOLD, shingles
from replay_sweeps.data.pipeline import jensen_shannon_divergence
from replay_sweeps.data.prepare import find_prepared
from replay_sweeps.data.prepared_text import PreparedSource, PreparedText
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.data.tokenizers import loaded
from replay_sweeps.errors import UserError
from replay_sweeps.parallel import FEW

from .conftest import Prepare, Sources, WriteFolder, made_up_document, request

hashes = st.binary(min_size=16, max_size=16)


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


@given(hashes, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_held_out_share_keeps_what_a_smaller_one_held_out(hashed: bytes, first: float, second: float) -> None:
    small, large = sorted((first, second))
    if part_of(hashed, small) != "train":
        assert part_of(hashed, large) == part_of(hashed, small)


@given(hashes)
def test_nothing_is_held_out_at_zero_and_all_at_one(hashed: bytes) -> None:
    assert part_of(hashed, 0.0) == "train"
    assert part_of(hashed, 1.0) in ("selection", "report")


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


def test_duplicates_within_a_source_are_dropped_and_counted(write_folder: WriteFolder, prepare: Prepare) -> None:
    texts = [made_up_document(seed, words=200) for seed in range(100)]
    more = [*texts, *texts[:7], *(f"{text} tail" for text in texts[:5])]
    source = SourceConfig("generic", "local", path=str(write_folder("g", more)), validation_fraction=0.2)
    counts = prepare(source).generic.counts
    assert (counts["documents"], counts["exact_duplicates_dropped"], counts["near_duplicates_dropped"]) == (112, 7, 5)


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


def test_what_was_prepared_is_found_again_without_heavy_imports(
    two_sources: Sources, prepare: Prepare, tmp_path: Path
) -> None:
    asked = request(*two_sources, folder=tmp_path / "prepared")
    assert find_prepared(asked) is None
    prepared = prepare(*two_sources)
    assert find_prepared(asked) == prepared == prepare(*two_sources)
    script = f"""
import sys
from pathlib import PosixPath, WindowsPath
from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.prepare import find_prepared
from replay_sweeps.data.text_keys import TextRequest
assert find_prepared({asked!r}) is not None
heavy = {{"torch", "transformers", "tokenizers", "rensa", "datasets", "scipy", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_changed_text_is_prepared_anew(two_sources: Sources, prepare: Prepare, tmp_path: Path) -> None:
    before = prepare(*two_sources)
    (Path(two_sources[1].path or "") / "new.txt").write_text(made_up_document(9999))
    after = prepare(*two_sources)
    assert after.generic.train == before.generic.train
    assert after.targets[0].counts["documents"] == before.targets[0].counts["documents"] + 1


@pytest.mark.parametrize(
    ("documents", "fraction", "expected"),
    [
        (3, 0.001, "no document for the selection half of validation: 3 different documents of 3"),
        (3, 1.0, "no document for training text"),
        (0, 0.1, "there is no text"),
    ],
)
def test_too_little_text_is_said_in_one_line(
    write_folder: WriteFolder, prepare: Prepare, documents: int, fraction: float, expected: str
) -> None:
    folder = write_folder("few", [made_up_document(seed) for seed in range(documents)] or [" \n "])
    source = SourceConfig("few", "local", path=str(folder), validation_fraction=fraction)
    with pytest.raises(UserError, match=expected) as caught:
        prepare(source)
    assert len(caught.value.problems) == 1


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(prepare: Prepare, tmp_path: Path) -> None:
    missing = [SourceConfig(name, "local", path=str(tmp_path / name)) for name in ("a", "b")]
    with pytest.raises(UserError) as caught:
        prepare(*missing, tokenizer=TokenizerConfig("bpe", 3))
    assert len(caught.value.problems) == 3
    assert list(tmp_path.iterdir()) == []


def test_the_divergence_is_that_of_jensen_and_shannon_in_nats() -> None:
    first, second = np.array([3, 1, 0]), np.array([0, 0, 9])
    assert jensen_shannon_divergence(first, first) == 0
    assert math.isclose(jensen_shannon_divergence(first, second), math.log(2))


def test_a_source_is_cleaned_once_whatever_the_tokenizer(
    two_sources: Sources, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(*two_sources)
    monkeypatch.setattr("replay_sweeps.data.cleaning.documents", lambda *_: pytest.fail("read again"))
    assert prepare(*two_sources, tokenizer=TokenizerConfig("bpe", 350)).tokenizer.vocab_size == 350


def test_the_cleaned_text_is_in_the_order_of_the_source(two_sources: Sources, tmp_path: Path) -> None:
    text = clean_text(two_sources[0], tmp_path / "text", None)
    order = [made_up_document(seed) for seed in range(150)]
    places = [order.index(document) for document in text.documents("train")]
    assert places == sorted(places)
    assert len(text.signatures("train")) == len(places)


def test_validation_halves_do_not_depend_on_the_order_of_the_source(
    write_folder: WriteFolder, prepare: Prepare, two_sources: Sources
) -> None:
    backwards = write_folder("backwards", [made_up_document(seed) for seed in reversed(range(1000, 1080))])
    other = SourceConfig("target", "local", path=str(backwards), validation_fraction=0.2)
    first, second = (prepare(two_sources[0], target).targets[0] for target in (two_sources[1], other))
    assert first.train != second.train
    assert (first.selection, first.report) == (second.selection, second.report)


@given(st.lists(st.integers(0, 900), min_size=1, max_size=60), st.integers(1, 20_000))
def test_a_validation_half_samples_many_documents_and_keeps_to_its_size(lengths: list[int], limit: int) -> None:
    documents = [np.append(np.arange(1, length + 1), 0) for length in lengths]
    sample = list(sample_of_documents(iter([np.concatenate(documents)]), limit, end_of_text=0))
    assert sum(map(len, sample)) == min(limit, sum(map(len, documents)))
    most = max(limit // 32, 256)
    for document, first in zip(documents, sample, strict=False):
        assert first.tolist() == document[: min(most, len(first))].tolist()
