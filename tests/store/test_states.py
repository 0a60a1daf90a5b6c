"""A state is kept whole or not at all, and what is damaged counts as missing."""

from pathlib import Path

import pytest

from replay_sweeps.errors import DamagedFile
from replay_sweeps.store.states import METRICS, Failure, SegmentRecord, Store
from replay_sweeps.tree.state_name import StateName

STATE = StateName("r" * 64, 12, "k" * 64)


def made_by() -> SegmentRecord:
    return SegmentRecord(0, None, {name: [1.0] for name in ("step", *METRICS)}, {"torch": "2"}, 3.0)


def save(store: Store, resumable: bool = True, content: bytes = b"weights") -> Path:
    store.save_state(
        STATE, made_by(), lambda folder: (folder / "model.safetensors").write_bytes(content) and None, resumable
    )
    return store.open_state(STATE)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_damaged_state_is_noticed_dropped_and_can_be_saved_again(tmp_path: Path, damage, name: str) -> None:  # type: ignore[no-untyped-def]
    store = Store(tmp_path)
    damage(save(store) / name)
    with pytest.raises(DamagedFile):
        store.open_state(STATE)
    assert not store.has_weights(STATE)
    assert (save(store) / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_records_and_observations_are_logged_and_count_as_missing(
    tmp_path: Path,
    damage,  # type: ignore[no-untyped-def]
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(tmp_path)
    save(store)
    store.save_observation(STATE, "validation", {"loss": 3.0})
    assert store.observation(STATE, "validation") == {"loss": 3.0}
    for file in [*tmp_path.glob("records/*/*.json"), *tmp_path.glob("observations/*/*.json")]:
        damage(file)
    assert store.segment_record(STATE) is None
    assert store.observation(STATE, "validation") is None
    assert not store.is_resumable(STATE)
    assert len(caplog.records) == 2


def test_a_state_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    save(store, content=b"first")
    assert (save(store, content=b"second") / "model.safetensors").read_bytes() == b"first"


def test_weights_alone_are_replaced_by_a_state_that_training_can_go_on_from(tmp_path: Path) -> None:
    store = Store(tmp_path)
    save(store, resumable=False)
    assert store.has_weights(STATE) and not store.is_resumable(STATE)
    save(store)
    assert store.is_resumable(STATE)


def test_a_failure_is_recorded_until_it_is_cleared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.failure(STATE) is None
    store.record_failure(STATE, "a reason", "the last line")
    assert store.failure(STATE) == Failure("a reason", "the last line")
    store.clear_failure(STATE)
    assert store.failure(STATE) is None


def test_removing_observations_leaves_those_of_other_states(tmp_path: Path) -> None:
    store, other = Store(tmp_path), StateName(STATE.root, STATE.step, "m" * 64)
    for state, validation in ((STATE, "one"), (STATE, "two"), (other, "one")):
        store.save_observation(state, validation, {"loss": 3.0})
    store.remove_observations(STATE)
    assert store.observation(STATE, "one") is None and store.observation(STATE, "two") is None
    assert store.observation(other, "one") == {"loss": 3.0}


def test_kept_states_are_named_with_their_sizes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = save(store)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert [(state.path, bytes_) for state, bytes_ in store.kept_states()] == [(STATE.path, size)]
    store.drop_state(STATE)
    assert list(store.kept_states()) == [] and store.segment_record(STATE) == made_by()


def test_a_write_that_fails_leaves_no_state_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        store.save_state(STATE, made_by(), fail, True)
    assert not store.has_weights(STATE)
    assert [path.name for path in (tmp_path / "states").rglob("*") if path.is_file()] == []
