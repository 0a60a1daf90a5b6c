"""A token store holds what was written, is named by it, and notices any damage."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.data.token_store import TokenStore, dtype_for, write_token_store
from replay_sweeps.errors import DamagedFile


def batches(*sizes: int) -> list[np.ndarray]:
    return [np.arange(size) for size in sizes]


def test_a_store_gives_back_its_tokens_read_only(tmp_path: Path) -> None:
    store = write_token_store(tmp_path, batches(10, 0, 5), "<u2")
    tokens = store.open()
    assert tokens.tolist() == [*range(10), *range(5)]
    assert (store.tokens, store.rows(4), tokens.dtype) == (15, 3, np.dtype("<u2"))
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50), st.integers(1, 7))
def test_the_fingerprint_is_that_of_the_tokens_however_they_came(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[int], size: int
) -> None:
    pieces = [np.array(tokens[start : start + size]) for start in range(0, len(tokens), size)]
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)  # hundreds of stores, none of which has to outlive a crash
        whole = write_token_store(folder / "1", [np.array(tokens)], "<u2")
        assert write_token_store(folder / "2", pieces, "<u2").fingerprint == whole.fingerprint
        assert write_token_store(folder / "3", [np.array([*tokens, 0])], "<u2").fingerprint != whole.fingerprint
        assert write_token_store(folder / "3", pieces, "<u4").fingerprint != whole.fingerprint


def test_the_type_holds_the_vocabulary() -> None:
    assert [dtype_for(size) for size in (300, 65535, 65536, 128_256)] == ["<u2", "<u2", "<u4", "<u4"]


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    store = write_token_store(tmp_path, batches(1000), "<u2")
    content = bytearray(store.path.read_bytes())
    content[777] ^= 4
    store.path.write_bytes(content)
    with pytest.raises(DamagedFile, match="checksum"):
        store.open()


def test_damage_after_the_first_opening_is_noticed(tmp_path: Path) -> None:
    store = write_token_store(tmp_path, batches(1000), "<u2")
    store.open()
    store.path.write_bytes(bytes(2000))
    with pytest.raises(DamagedFile, match="checksum"):
        store.open()


@pytest.mark.parametrize("size", [0, 1, 1999])
def test_a_truncated_or_missing_store_is_noticed(tmp_path: Path, size: int) -> None:
    store = write_token_store(tmp_path, batches(1000), "<u2")
    store.path.write_bytes(store.path.read_bytes()[:size])
    with pytest.raises(DamagedFile):
        store.open()
    store.path.unlink()
    with pytest.raises(DamagedFile, match="missing"):
        store.open()


def test_writing_the_same_tokens_repairs_a_damaged_store(tmp_path: Path) -> None:
    store = write_token_store(tmp_path, batches(1000), "<u2")
    store.path.write_bytes(bytes(2000))
    again = write_token_store(tmp_path, batches(1000), "<u2")
    assert again == store
    assert again.open().tolist() == list(range(1000))


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def failing():  # type: ignore[no-untyped-def]
        yield np.arange(10)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_token_store(tmp_path, failing(), "<u2")
    assert list(tmp_path.iterdir()) == []


def test_a_store_survives_being_written_down_and_moved(tmp_path: Path) -> None:
    store = write_token_store(tmp_path / "here", batches(10), "<u2")
    record = store.to_record(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert TokenStore.from_record(record, tmp_path / "there").open().tolist() == list(range(10))
