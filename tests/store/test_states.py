"""States on disk: written whole or not at all, checked when read, dropped without their records."""

from pathlib import Path

import pytest

from replay_sweeps.errors import DamagedFile
from replay_sweeps.store.states import METRICS, SegmentRecord, Store
from replay_sweeps.tree.state_name import StateName

STATE = StateName("r" * 64, 12, "k" * 64)


def segment_record() -> SegmentRecord:
    return SegmentRecord(0, None, {name: [1.0] for name in ("step", *METRICS)}, {"torch": "2"}, 3.0)


def put(store: Store, resumable: bool = True, content: bytes = b"weights") -> Path:
    store.put(
        STATE, segment_record(), lambda folder: (folder / "model.safetensors").write_bytes(content) and None, resumable
    )
    return store.open(STATE)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_damaged_state_is_noticed_dropped_and_can_be_put_again(tmp_path: Path, damage, name: str) -> None:  # type: ignore[no-untyped-def]
    store = Store(tmp_path)
    damage(put(store) / name)
    with pytest.raises(DamagedFile):
        store.open(STATE)
    assert not store.has_weights(STATE)
    assert (put(store) / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_records_and_observations_are_said_and_count_as_missing(
    tmp_path: Path,
    damage,  # type: ignore[no-untyped-def]
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(tmp_path)
    put(store)
    store.observe(STATE, "validation", {"loss": 3.0})
    assert store.observation(STATE, "validation") == {"loss": 3.0}
    for file in [*tmp_path.glob("records/*/*.json"), *tmp_path.glob("observations/*/*.json")]:
        damage(file)
    assert store.segment_record(STATE) is None
    assert store.observation(STATE, "validation") is None
    assert not store.is_kept(STATE)
    assert len(caplog.records) == 2


def test_a_state_is_the_same_whoever_puts_it_second(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, content=b"first")
    assert (put(store, content=b"second") / "model.safetensors").read_bytes() == b"first"


def test_weights_alone_are_replaced_by_a_state_that_training_can_go_on_from(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, resumable=False)
    assert store.has_weights(STATE) and not store.is_kept(STATE)
    put(store)
    assert store.is_kept(STATE)


def test_a_write_that_fails_leaves_no_state_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        store.put(STATE, segment_record(), fail, True)
    assert not store.has_weights(STATE)
    assert [path.name for path in (tmp_path / "states").rglob("*") if path.is_file()] == []
