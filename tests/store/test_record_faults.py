"""Whatever stands in a record's place: it is told in one line, it counts as missing, and it can be made again."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replay_sweeps.errors import CannotGoOn, DamagedFile
from replay_sweeps.files import fingerprint, inside, read_record, write_record
from replay_sweeps.models import numerics
from replay_sweeps.store.marker import mark_store
from replay_sweeps.store.states import METRICS, Failure, SegmentRecord, Store
from replay_sweeps.tree.state_name import StateName

STATE = StateName("a" * 64, 12, "b" * 64)
Fault = Callable[[Path], Any]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def replaced_by(make: Fault) -> Fault:
    def fault(file: Path) -> None:
        file.unlink()
        make(file)

    return fault


def with_checksum(value: dict[str, Any]) -> str:
    return json.dumps({**value, "checksum": fingerprint(value)})


def deep_with_checksum(file: Path) -> None:
    file.write_text('{"checksum": "' + "0" * 64 + '", "a": ' + "[" * 50_000 + "]" * 50_000 + "}")


FAULTS: dict[str, Fault] = {
    "flip": flip,
    "truncate": lambda file: os.truncate(file, 10),
    "empty": lambda file: file.write_bytes(b""),
    "folder": replaced_by(lambda file: (file / "inside").mkdir(parents=True)),
    "pipe": replaced_by(os.mkfifo),
    "loop of links": replaced_by(lambda file: file.symlink_to(file)),
    "link that leads nowhere": replaced_by(lambda file: file.symlink_to("nowhere")),
    "list": lambda file: file.write_text("[1]"),
    "number": lambda file: file.write_text("1"),
    "null": lambda file: file.write_text("null"),
    "Infinity": lambda file: file.write_text('{"loss": Infinity, "checksum": "x"}'),
    "1e999": lambda file: file.write_text('{"loss": 1e999, "checksum": "x"}'),
    "deep": deep_with_checksum,
    "other shape": lambda file: file.write_text(
        with_checksum({"files": 3, "reason": 3, "loss": "x", "bf16_flops": []})
    ),
    "nothing in it": lambda file: file.write_text(with_checksum({})),
    "not a text": lambda file: file.write_bytes(b"\xff\xfe{"),
}


def made_by() -> SegmentRecord:
    return SegmentRecord(0, None, {name: [1.0] for name in ("step", *METRICS)}, {"torch": "2"}, 3.0)


def save_state(store: Store) -> None:
    store.save_state(STATE, made_by(), lambda folder: (folder / "model.safetensors").write_bytes(b"w") and None, True)


def measure(store: Store) -> None:
    numerics.measured_rates(store.folder)


# by kind: the file's pattern, how it is made, and what is read of it once it is sound
KINDS: dict[str, tuple[str, Callable[[Store], Any], Callable[[Store], Any]]] = {
    "record": ("records/*/*.json", save_state, lambda store: store.segment_record(STATE)),
    "manifest": ("states/*/*/state.json", save_state, lambda store: store.has_weights(STATE) or None),
    "observation": (
        "observations/*/*.json",
        lambda store: store.save_observation(STATE, "v", {"loss": 3.0}),
        lambda store: store.observation(STATE, "v"),
    ),
    "failure": (
        "failures/*/*.json",
        lambda store: store.record_failure(STATE, "a reason"),
        lambda store: store.failure(STATE),
    ),
    "numerics": ("numerics/*.json", measure, lambda store: numerics.known_rates(store.folder)),
    "marker": (
        "store.json",
        lambda store: mark_store(store.folder),
        lambda store: (store.folder / "store.json").is_file(),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_record_is_told_and_made_again(
    kind: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numerics, "_measure_rates", lambda: {"device": "cpu", "fp32_flops": 1.0, "bf16_flops": 2.0})
    store = Store(tmp_path / "store")
    pattern, make, read = KINDS[kind]
    make(store)
    [file] = store.folder.glob(pattern)
    sound = read(store)
    assert sound
    FAULTS[fault](file)
    with caplog.at_level(logging.WARNING):
        if kind != "marker":
            assert read(store) is None
            said = [record.getMessage() for record in caplog.records]
            assert said or fault in ("link that leads nowhere", "other shape", "nothing in it")
            assert all("\n" not in line for line in said)
        make(store)
    assert read(store) == sound
    if fault == "folder":
        assert list(store.folder.rglob("inside")) or kind == "manifest"  # dropped with its state
    assert store.kept_states() is not None and list(store.entries("records")) is not None


PLACES = ("states", "records", "observations", "failures")


@pytest.mark.parametrize("below", [True, False], ids=["tree", "kind"])
@pytest.mark.parametrize("what", ["file", "pipe", "loop", "link outside"])
@pytest.mark.parametrize("kind", PLACES)
def test_something_else_in_place_of_a_folder(kind: str, what: str, below: bool, tmp_path: Path) -> None:
    store, outside = Store(tmp_path / "store"), tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    place = store.folder / kind / STATE.tree if below else store.folder / kind
    place.parent.mkdir(parents=True)
    make: dict[str, Fault] = {
        "file": lambda path: path.write_text("x"),
        "pipe": os.mkfifo,
        "loop": lambda path: path.symlink_to(path),
        "link outside": lambda path: path.symlink_to(outside),
    }
    make[what](place)

    def use() -> None:
        assert store.names(kind, STATE.tree) == set()
        assert list(store.kept_states()) == []
        save_state(store)
        store.save_observation(STATE, "v", {"loss": 3.0})
        store.record_failure(STATE, "a reason")
        assert store.segment_record(STATE) and store.open_state(STATE) and store.observation(STATE, "v")
        assert store.failure(STATE) == Failure("a reason", "")

    if what == "loop" and not below:  # a link of the user's own, to a disk that is not there
        with pytest.raises(CannotGoOn, match="is a link that leads nowhere"):
            use()
    else:
        use()
    if below:
        assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "x"


@pytest.mark.parametrize("what", ["file", "link outside", "pipe", "empty folder"])
def test_something_else_in_place_of_a_state(what: str, tmp_path: Path) -> None:
    store, outside = Store(tmp_path / "store"), tmp_path / "outside"
    outside.mkdir()
    (outside / "state.json").write_text("x")
    place = store.folder / "states" / STATE.path
    place.parent.mkdir(parents=True)
    make: dict[str, Fault] = {
        "file": lambda path: path.write_text("x"),
        "pipe": os.mkfifo,
        "link outside": lambda path: path.symlink_to(outside),
        "empty folder": Path.mkdir,
    }
    make[what](place)
    assert not store.has_weights(STATE) and not store.is_resumable(STATE)
    save_state(store)
    assert store.open_state(STATE) and (outside / "state.json").read_text() == "x"


def test_a_file_of_another_user_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path / "x.json", {"a": 1})

    def refused(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(CannotGoOn) as raised:
        read_record(tmp_path / "x.json")
    [line] = raised.value.problems
    assert line.startswith(f"{tmp_path / 'x.json'} may not be read (Permission denied)")


def test_a_record_that_is_too_large_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from replay_sweeps import files

    write_record(tmp_path / "x.json", {"a": "x" * 1000})
    monkeypatch.setattr(files.read_bounded, "__defaults__", (500,))
    with pytest.raises(DamagedFile, match="more than 500 bytes"):
        read_record(tmp_path / "x.json")


@pytest.mark.parametrize(
    "parent", [(12, "b" * 64), (13, "c" * 64), (-1, "c" * 64), (3, "../../x"), (3, None), (0, "c")]
)
def test_a_segment_that_does_not_lead_back_is_damaged(parent: tuple[int, str | None], tmp_path: Path) -> None:
    store = Store(tmp_path)
    save_state(store)
    file = tmp_path / "records" / f"{STATE.path}.json"
    record = read_record(file) | {"parent_step": parent[0], "parent_key": parent[1]}
    write_record(file, record)
    assert store.segment_record(STATE) is None and not file.exists()


@pytest.mark.parametrize(
    "name", ["../victim", "/etc", "a/../../victim", "", ".", "link/x", "loop/x", "a\0b", 3, None, ["a"]]
)
def test_a_path_that_leads_out_of_its_folder_is_refused(name: object, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(DamagedFile):
        inside(folder, name)
    assert inside(folder, "a/b") == folder / "a" / "b"
    (tmp_path / "other").symlink_to(folder)  # a link above is the user's own
    assert inside(tmp_path / "other", "a") == tmp_path / "other" / "a"


@pytest.mark.parametrize("name", [("../..", 3), ("a" * 16, "../x"), (".", "x"), ("a/b", "x")])
def test_the_name_of_a_state_leads_nowhere_else(name: tuple[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(DamagedFile, match="is not the name of a state"):
        store.has_weights(StateName(name[0], 1, str(name[1]) if name[0] == "a" * 16 else "k"))
