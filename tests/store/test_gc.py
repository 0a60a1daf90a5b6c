"""Garbage collection drops what no study needs, and nothing that a study needs."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from replay_sweeps.errors import CannotGoOn
from replay_sweeps.main import main
from replay_sweeps.store import command as store_command
from replay_sweeps.store.gc import collect_garbage
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.marker import mark_store
from replay_sweeps.store.states import METRICS, SegmentRecord, Store
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.store.study_records import StudyRecord, forget_study, study_records, write_study_record
from replay_sweeps.tree.state_name import StateName, observation_name
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.workers.work_order import PoolSettings
from replay_sweeps.workers.worker import PathWorker
from tests.fixtures.studies import FakeTraining


@dataclass(frozen=True)
class KeptState:
    """A state of a made-up store."""

    name: StateName
    parent: int | None  # index of the state that it was trained from


@dataclass(frozen=True)
class MadeUpStudy:
    """A study of a made-up store."""

    states: frozenset[int]
    complete: bool


@st.composite
def kept_states(draw: st.DrawFn) -> list[KeptState]:
    """States of up to two trees, each trained from an earlier one of its tree or from the initial weights."""
    states: list[KeptState] = []
    for number in range(draw(st.integers(1, 8))):
        root = draw(st.sampled_from("ab")) * 64
        parents = [None, *(index for index, state in enumerate(states) if state.name.root == root)]
        parent = draw(st.sampled_from(parents))
        step = 1 + (states[parent].name.step if parent is not None else 0)
        states.append(KeptState(StateName(root, step, f"{number:064x}"[::-1]), parent))
    return states


def fill(store: Store, states: Sequence[KeptState]) -> None:
    """Save each state with its record, a loss and a failure."""
    series: dict[str, list[float | int | None]] = {name: [1.0] for name in ("step", *METRICS)}
    for state in states:
        parent = states[state.parent].name if state.parent is not None else None
        record = SegmentRecord(parent.step if parent else 0, parent.key if parent else None, series, {}, 1.0)
        store.save_state(state.name, record, lambda folder: (folder / "model.safetensors").touch(), True)
        store.save_observation(state.name, "v" * 64, {"loss": 3.0})
        store.record_failure(state.name, "a reason")


def write_studies(store: Store, folder: Path, states: Sequence[KeptState], studies: Sequence[MadeUpStudy]) -> None:
    for number, study in enumerate(studies):
        (folder / str(number)).mkdir()
        paths = frozenset(states[index].name.path for index in study.states)
        output = str(folder / str(number))
        names = [states[index].name for index in study.states]
        runs = {f"run{index}": [name.root, name.step, name.key] for index, name in enumerate(names)}
        record = StudyRecord(f"study{number}", output, study.complete, paths, {}, (), {}, runs)
        write_study_record(store.folder, record)


def needed(states: Sequence[KeptState], studies: Sequence[MadeUpStudy]) -> set[int]:
    """What must stay: named states, all that they were trained from, and whole trees of unfinished studies."""
    stays: set[int] = set()
    for study in studies:
        for index in study.states:
            ancestor: int | None = index
            while ancestor is not None:
                stays.add(ancestor)
                ancestor = states[ancestor].parent
            if not study.complete:
                root = states[index].name.root
                stays |= {other for other, state in enumerate(states) if state.name.root == root}
    return stays


def files(store: Store) -> set[str]:
    """What a store holds of states, without the study records."""
    kinds = ("states", "records", "observations", "failures")
    return {path.relative_to(store.folder).as_posix() for kind in kinds for path in (store.folder / kind).glob("*/*")}


def files_of(state: StateName) -> set[str]:
    return {
        f"states/{state.path}",
        f"records/{state.path}.json",
        f"failures/{state.path}.json",
        f"observations/{state.tree}/{observation_name(state, 'v' * 64)}.json",
    }


@settings(max_examples=25, deadline=None)
@given(data=st.data(), states=kept_states())
def test_exactly_what_some_study_needs_stays(data: st.DataObject, states: list[KeptState]) -> None:
    indices = st.frozensets(st.integers(0, len(states) - 1), max_size=3)
    studies = data.draw(st.lists(st.builds(MadeUpStudy, indices, st.booleans()), max_size=3))
    with tempfile.TemporaryDirectory() as folder, patch("os.fsync"):
        store = Store(Path(folder) / "store")
        fill(store, states)
        write_studies(store, Path(folder), states, studies)
        before = files(store)
        collect_garbage(store, dry_run=True)
        assert files(store) == before
        collect_garbage(store, dry_run=False)
        stays = needed(states, studies)
        assert files(store) == set().union(*(files_of(states[index].name) for index in stays))


def damage(draw: st.DrawFn, store: Store) -> None:
    """Something happens to one of the files by which gc knows what is needed."""
    known = [*store.folder.glob("studies/*.json"), *store.folder.glob("records/*/*.json"), store.folder / "store.json"]
    file = draw(st.sampled_from(sorted(file for file in known if file.is_file())))
    fault = draw(st.sampled_from(["flip", "cut", "empty", "list", "folder", "loop", "missing"]))
    if fault == "missing" and file.parent.name == "studies":
        return  # nobody can tell that there was one
    content = bytearray(file.read_bytes() or b"..")
    content[draw(st.integers(0, len(content) - 2))] ^= 1
    file.unlink()
    if fault == "folder":
        file.mkdir()
    elif fault == "loop":
        file.symlink_to(file)
    elif fault != "missing":
        file.write_bytes({"flip": bytes(content), "cut": bytes(content[:9]), "empty": b"", "list": b"[1]"}[fault])


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(data=st.data(), states=kept_states())
def test_nothing_that_a_study_needs_is_dropped_whatever_is_damaged(
    data: st.DataObject, states: list[KeptState]
) -> None:
    indices = st.frozensets(st.integers(0, len(states) - 1), max_size=3)
    studies = data.draw(st.lists(st.builds(MadeUpStudy, indices, st.booleans()), min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as folder, patch("os.fsync"):
        store = Store(Path(folder) / "store")
        fill(store, states)
        write_studies(store, Path(folder), states, studies)
        before = files(store)
        damage(data.draw, store)  # type: ignore[arg-type]
        damage(data.draw, store)  # type: ignore[arg-type]
        lost = before - files(store)
        stopped = store_command.main(["gc", "--now", "--store", str(store.folder)])
        stays = set().union(*(files_of(states[index].name) for index in needed(states, studies)))
        assert stays - lost <= files(store)
        assert not stopped or before - lost == files(store)


def test_a_study_that_is_trained_keeps_all_that_it_needs(
    plan_of: Callable[..., StudyPlan], training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of("schedule.replay_fraction=0,0.5", "trainer.waypoints=2")
    status = StudyStatus(plan.tree, training.store)
    PathWorker(status, Leases(training.store.folder, "a"), training, pool=PoolSettings()).work()
    (tmp_path / "output").mkdir()
    write_study_record(training.store.folder, StudyRecord.of(plan, complete=True))
    before = files(training.store)
    collect_garbage(training.store, dry_run=False)
    assert capsys.readouterr().out == "dropped 0 states, 0 records, 0 folders of text, 0.0 MB\n"
    assert files(training.store) == before and not any(status.missing())
    (tmp_path / "output").rmdir()
    collect_garbage(training.store, dry_run=False)
    assert files(training.store) == before and not any(status.missing())
    assert "single keeps what it needs, though its folder" in capsys.readouterr().out
    forget_study(training.store.folder, "single")
    collect_garbage(training.store, dry_run=False)
    assert files(training.store) == set() and study_records(training.store.folder) == []
    assert "they stay in" in capsys.readouterr().out


def test_nothing_is_dropped_while_a_worker_trains(tmp_path: Path) -> None:
    store = Store(tmp_path)
    states = [KeptState(StateName("a" * 64, 1, "b" * 64), None)]
    fill(store, states)
    lease = Leases(tmp_path, "a").acquire("path")
    assert lease
    with pytest.raises(CannotGoOn, match="workers are training in"):
        collect_garbage(store, dry_run=False)
    assert files(store) == files_of(states[0].name)
    lease.release()
    collect_garbage(store, dry_run=False)
    assert files(store) == set()


def test_what_a_killed_process_left_half_written_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mark_store(tmp_path)
    half_written = tmp_path / "states" / ("a" * 16) / ".000000001-b.c.tmp"
    half_written.mkdir(parents=True)
    (half_written / "model.safetensors").write_bytes(b"half")
    collect_garbage(store, dry_run=False)
    assert not half_written.exists()


@pytest.mark.slow
def test_the_store_is_listed_and_what_no_study_refers_to_is_dropped(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    for name, target in (("one", []), ("two", ["target.max_documents=150"])):
        given = command(f"paths.store={store}", "schedule.replay_fraction=0,0.5", *target, output=name)
        assert main(given) == 0
    given = ["--store", str(store)]
    assert store_command.main(["list", *given]) == 0
    assert capsys.readouterr().out.count("complete") == 2
    assert store_command.main(["gc", *given]) == 0
    assert capsys.readouterr().out == "dropped 0 states, 0 records, 0 folders of text, 0.0 MB\n"
    (tmp_path / "two").rename(tmp_path / "away")
    assert store_command.main(["gc", *given]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "dropped 0 states, 0 records, 0 folders of text, 0.0 MB" and "forget" in said[1]
    assert store_command.main(["forget", str(tmp_path / "two"), *given]) == 0
    assert capsys.readouterr().out.startswith("forgot ")
    assert store_command.main(["gc", *given, "--dry-run"]) == 0
    assert store_command.main(["gc", *given]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].replace("would drop", "dropped") == said[2] and "dropped 2 states" in said[2]
    assert "4 folders of text" in said[2]  # of the target that only the second study had: cleaned, and its three parts
    assert main(command(f"paths.store={store}", "schedule.replay_fraction=0,0.5", output="one")) == 0
    assert "runs 0/" not in capsys.readouterr().err


def test_text_that_is_being_made_is_not_collected(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from replay_sweeps.data import prepare
    from replay_sweeps.workers import run_study

    store, seen = tmp_path / "output" / "store", []
    run = prepare.Preparation.run

    def prepared(*given: Any) -> Any:
        made = run(*given)
        seen.append((store_command.main(["gc", "--store", str(store)]), capsys.readouterr().err))
        return made

    def planned(*given: Any) -> Any:
        seen.append((store_command.main(["gc", "--store", str(store)]), capsys.readouterr().out))
        raise KeyboardInterrupt  # before any state

    monkeypatch.setattr(prepare.Preparation, "run", prepared)
    monkeypatch.setattr(run_study, "measured_rates", planned)
    with pytest.raises(SystemExit):
        main(command("schedule.replay_fraction=0,0.5", "trainer.threads=1"))
    busy, between = seen
    assert busy[0] == 1 and busy[1].splitlines()[-1] == (
        f"replay-store: text is being prepared in {store / 'text'}; try again when it is done"
    )
    assert between == (0, "dropped 0 states, 0 records, 0 folders of text, 0.0 MB\n")
    assert list((store / "text" / "tokens").iterdir())
