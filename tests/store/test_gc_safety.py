"""gc removes nothing that a study may need: damaged records stop it, and what it drops can be taken back for a day."""

import json
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.files import fingerprint, temporary_name, write_record
from replay_sweeps.store import leases, trash
from replay_sweeps.store.command import main as store_command
from replay_sweeps.store.gc import collect_garbage
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.leftovers import DAY
from replay_sweeps.store.states import METRICS, SegmentRecord, Store
from replay_sweeps.store.study_records import StudyRecord, keep_texts, study_files, write_study_record
from replay_sweeps.tree.state_name import StateName

from .golden import ARCHIVE

ROOT = "a" * 64
FIRST, SECOND, OTHER = StateName(ROOT, 1, "1" * 64), StateName(ROOT, 2, "2" * 64), StateName("b" * 64, 1, "3" * 64)


def segment(parent: StateName | None) -> SegmentRecord:
    series: dict[str, list[float | int | None]] = {name: [1.0] for name in ("step", *METRICS)}
    return SegmentRecord(parent.step if parent else 0, parent.key if parent else None, series, {}, 1.0)


def save(store: Store, state: StateName, parent: StateName | None = None) -> None:
    store.save_state(
        state, segment(parent), lambda folder: (folder / "model.safetensors").write_bytes(b"w") and None, True
    )
    store.save_observation(state, "v" * 64, {"loss": 3.0})


def record_of(store: Store, output: Path, states: list[StateName], complete: bool = True) -> StudyRecord:
    runs = {"run": [states[-1].root, states[-1].step, states[-1].key]}
    return StudyRecord("study", str(output), complete, frozenset(state.path for state in states), {}, (), {}, runs)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a chain of two states that a study needs, and a state that none needs."""
    store = Store(tmp_path / "store")
    save(store, FIRST)
    save(store, SECOND, FIRST)
    save(store, OTHER)
    (tmp_path / "output").mkdir()
    write_study_record(store.folder, record_of(store, tmp_path / "output", [SECOND]))
    return store


def contents(folder: Path, *without: str) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in without and path.name != "lock" and path != folder / "text"
    }


def gc(store: Store, *more: str) -> int:
    return store_command(["gc", "--store", str(store.folder), *more])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def with_checksum(value: dict[str, object]) -> str:
    return json.dumps({**value, "checksum": fingerprint(value)})


def newer(file: Path) -> None:
    record = json.loads(file.read_text())
    record.pop("checksum")
    file.write_text(with_checksum({**record, "needs": ["everything"]}))


def other_shape(file: Path) -> None:
    record = json.loads(file.read_text())
    record.pop("checksum")
    file.write_text(with_checksum({**record, "states": 3}))


def folder_in_place(file: Path) -> None:
    file.unlink()
    (file / "inside").mkdir(parents=True)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


FAULTS: list[Callable[[Path], object]] = [
    flip,
    newer,
    other_shape,
    folder_in_place,
    pipe,
    loop,
    lambda file: os.truncate(file, 20),
    lambda file: file.write_bytes(b""),
    lambda file: file.write_text("[1, 2]"),
    lambda file: file.write_text("3"),
    lambda file: file.write_text('{"checksum": Infinity}'),
    lambda file: file.write_text("[" * 200_000),
]
NAMES = ["flip", "newer", "shape", "folder", "pipe", "loop", "short", "empty", "list", "number", "Infinity", "deep"]


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_study_record_that_cannot_be_read_stops_gc_with_one_line(
    fault: Callable[[Path], object], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    [file] = (store.folder / "studies").glob("*.json")
    fault(file)
    before = contents(store.folder)
    assert gc(store) == 1 and gc(store, "--now") == 1 and gc(store, "--dry-run") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and str(file) in lines[0] and f"replay-store forget {file.name}" in lines[0]
    assert contents(store.folder) == before
    assert store_command(["list", "--store", str(store.folder)]) == 0
    assert f"cannot be read: {file}" in capsys.readouterr().out
    output = store.folder.parent / "output"
    keep_texts(store.folder, "study", output, frozenset({"text/new"}))  # its command prepares text: not planned yet
    assert gc(store) == 1 and contents(store.folder) == before
    write_study_record(store.folder, record_of(store, output, [SECOND]))
    assert gc(store) == 0
    assert {state.path for state, _ in store.kept_states()} == {FIRST.path, SECOND.path}


def test_a_study_record_that_may_not_be_read_stops_gc_with_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [file] = (store.folder / "studies").glob("*.json")
    opens = os.open

    def refused(path: object, *rest: int, **more: object) -> int:
        if path == file:
            raise PermissionError(13, "Permission denied", str(file))
        return opens(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refused)
    before = contents(store.folder)
    assert gc(store) == 1 and contents(store.folder) == before
    [line] = capsys.readouterr().err.splitlines()
    assert f"{file} may not be read (Permission denied)" in line


def test_an_unreadable_record_can_be_given_up(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    [file] = (store.folder / "studies").glob("*.json")
    flip(file)
    assert store_command(["forget", file.name, "--store", str(store.folder)]) == 0
    assert gc(store) == 0 and list(store.kept_states()) == []
    assert "forgot" in capsys.readouterr().out


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (
        "states/0123/000000001-abc",
        "text/text/essays",
        "text/tokens/x",
        "records/0123",
        "numerics",
        "studies",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "records/0123/000000001-abc.json").write_text("{}")
    before = contents(tmp_path)
    assert store_command(["gc", "--store", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"replay-store: {tmp_path} is not a store; give its folder with --store\n"
    assert store_command(["forget", "study", "--store", str(tmp_path)]) == 2
    assert contents(tmp_path) == before


def test_a_store_of_a_newer_version_is_left_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(store.folder / "store.json", {"version": 2})
    save(store, OTHER)
    before = contents(store.folder)
    assert gc(store) == 1 and contents(store.folder) == before
    assert "was written by a newer version" in capsys.readouterr().err


def test_a_store_without_marker_is_known_by_its_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    before = contents(tmp_path / "store")
    assert store_command(["gc", "--store", str(tmp_path / "store")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "dropped 0 states, 0 records, 0 folders of text, 0.0 MB" and "golden keeps what it needs" in second
    assert contents(tmp_path / "store") == before


def test_a_study_is_forgotten_by_name_or_folder_and_by_nothing_else(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--store", str(store.folder)]
    write_study_record(store.folder, record_of(store, tmp_path / "second", [OTHER]))
    assert store_command(["forget", "nothing", *given]) == 2
    assert "no study of" in capsys.readouterr().err
    assert store_command(["forget", "study", *given]) == 2
    assert "2 studies are called study" in capsys.readouterr().err
    assert gc(store) == 0 and len(list(store.kept_states())) == 3  # the second one's folder is not there
    assert f"replay-store forget {tmp_path / 'second'} --store" in capsys.readouterr().out
    assert store_command(["forget", str(tmp_path / "second"), *given]) == 0
    assert store_command(["forget", "study", *given]) == 0
    assert study_files(store.folder) == {}


def test_what_was_dropped_can_be_moved_back_for_a_day(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(store.folder)
    assert gc(store) == 0
    assert f"they stay in {store.folder / 'trash'} for a day" in capsys.readouterr().out
    [batch] = (store.folder / "trash").iterdir()
    assert (batch / "states" / OTHER.path / "model.safetensors").is_file() and not store.has_weights(OTHER)
    assert gc(store) == 0 and batch.is_dir()
    for path in [*batch.glob("*/*/*")]:
        path.rename(store.folder / path.relative_to(batch))
    assert contents(store.folder, "trash") == before and store.open_state(OTHER)
    assert gc(store) == 0
    later = time.time() + DAY + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert gc(store) == 0 and list((store.folder / "trash").iterdir()) == []
    assert "removed from the trash: 0.0 MB" in capsys.readouterr().out


def test_a_disk_without_room_and_the_word_now_leave_no_trash(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(trash, "has_room", lambda *_: False)
        patched.setattr("replay_sweeps.store.gc.has_room", lambda *_: False)
        assert gc(store) == 0
    assert not (store.folder / "trash").exists() and not store.has_weights(OTHER)
    save(store, OTHER)
    assert gc(store) == 0 and list((store.folder / "trash").iterdir())
    save(store, OTHER)
    assert gc(store, "--now") == 0 and not list((store.folder / "trash").iterdir())
    assert not store.has_weights(OTHER) and store.has_weights(SECOND)


def test_a_damaged_or_lost_record_on_the_way_keeps_the_whole_tree(store: Store) -> None:
    unneeded = StateName(ROOT, 7, "7" * 64)
    save(store, unneeded)
    record = store.folder / "records" / f"{SECOND.path}.json"
    sound = record.read_bytes()
    flip(record)
    damaged = record.read_bytes()
    collect_garbage(store, dry_run=False)
    assert store.has_weights(FIRST) and store.has_weights(unneeded) and record.read_bytes() == damaged
    record.unlink()
    collect_garbage(store, dry_run=False)
    assert store.has_weights(FIRST) and store.has_weights(unneeded)
    record.write_bytes(sound)
    collect_garbage(store, dry_run=False)
    assert store.has_weights(FIRST) and not store.has_weights(unneeded)


def test_links_and_names_that_are_not_ours_are_left_alone(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in ("000000001-abc", "000000002-abc.json"):
        (outside / name).mkdir(parents=True)
        (outside / name / "precious").write_bytes(b"x")
    (store.folder / "text").mkdir()
    for kind in ("states", "records", "observations", "failures", "text"):
        (store.folder / kind).mkdir(exist_ok=True)
        (store.folder / kind / ("c" * 16)).symlink_to(outside)
        (store.folder / kind / "notes.txt").write_text("mine")
    for kind in ("states", "records", "observations"):
        (store.folder / kind / OTHER.tree / "odd").write_text("mine")
        (store.folder / kind / OTHER.tree / "000000009-c").symlink_to(outside)
    mine = {path for path in contents(tmp_path) if path.endswith(("notes.txt", "odd", "000000009-c", "precious"))}
    assert gc(store, "--now") == 0 and mine <= contents(tmp_path)
    assert list(store.kept_states()) and store_command(["list", "--store", str(store.folder)]) == 0


def test_a_stale_lease_of_another_host_does_not_stop_gc_and_a_living_one_does(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = Leases(store.folder, "a", heartbeat_interval=0.02).acquire("path")
    assert lease
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leases, "host_name", lambda: "another host")

        def watch() -> Leases:
            return Leases(store.folder, "", grace_period=0.3)

        with pytest.raises(Exception, match="workers are training in"):
            collect_garbage(store, dry_run=False, leases=watch)
        lease.stop_heartbeat()
        collect_garbage(store, dry_run=False, leases=watch)
    assert "whether a worker elsewhere lives" in capsys.readouterr().out
    assert not store.has_weights(OTHER) and Leases(store.folder, "").names() == []


def test_what_killed_processes_left_is_cleared_and_what_living_ones_write_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = temporary_name(store.folder / "studies" / "x.json")
    mine.write_bytes(b"")
    pid = os.fork()
    if pid == 0:  # a process that is killed while it writes, and holds leases
        Leases(store.folder, "gone").acquire("path")
        Leases(store.folder, "gone").register_worker()
        for folder in (store.folder, store.folder / "studies", store.folder / "states" / FIRST.tree):
            temporary_name(folder / "x.json").write_bytes(b"half")
        os._exit(9)
    os.waitpid(pid, 0)
    unknown = store.folder / "studies" / ".x.json.0123456789ab.tmp"  # of an older version, or of another host
    unknown.write_bytes(b"")
    assert len(list(store.folder.rglob(".*.tmp"))) == 5 and len(Leases(store.folder, "").names()) == 2
    collect_garbage(store, dry_run=False)
    assert set(store.folder.rglob(".*.tmp")) == {mine, unknown} and Leases(store.folder, "").names() == []
    later = time.time() + DAY + 1
    monkeypatch.setattr(time, "time", lambda: later)
    collect_garbage(store, dry_run=False)
    assert set(store.folder.rglob(".*.tmp")) == {mine}
