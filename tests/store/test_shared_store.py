"""What several studies, versions, disks and users do to one store costs none of them a trained state."""

import errno
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from replay_sweeps import processes
from replay_sweeps.data.prepare import only_one
from replay_sweeps.files import folder_made_atomically, temporary_name
from replay_sweeps.processes import process_birth
from replay_sweeps.store import states
from replay_sweeps.store.gc import unneeded_files
from replay_sweeps.store.retention import droppable
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.store.study_records import StudyRecord, kept_for_others, write_study_record
from replay_sweeps.store.trash import drop
from replay_sweeps.tree.study_plan import StudyPlan
from tests.fixtures.studies import FakeTraining
from tests.workers.test_worker import worker_of

GRID = ["schedule.replay_fraction=0,0.5"]


def test_a_study_that_keeps_nothing_leaves_what_another_keeps(
    plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    plan, store = plan_of(*GRID), training.store
    worker_of(plan, training).work()
    write_study_record(store.folder, StudyRecord.of(plan, complete=True))
    ends = {plan.tree.end(index).path for index in range(len(plan.tree.paths))}
    other = (store.folder, "other", Path("other"))
    status = StudyStatus(plan.tree, store)
    dropped = {state.path for state in droppable(status, status.missing(), "none", kept_for_others(*other))}
    assert dropped and not dropped & ends
    own = (store.folder, plan.study.name, plan.study.output)
    assert ends <= {state.path for state in droppable(status, status.missing(), "none", kept_for_others(*own))}
    [record] = (store.folder / "studies").iterdir()
    record.write_text("[]")
    assert kept_for_others(*other) is None and not list(droppable(status, status.missing(), "none", None))


def test_a_state_is_not_dropped_for_an_error_that_passes(
    plan_of: Callable[..., StudyPlan], training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(*GRID)
    worker_of(plan, training).work()

    def fail(*_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(states, "file_checksum", fail)
        with pytest.raises(OSError, match="Input/output error"):
            training.store.open_state(plan.tree.end(0))
    assert training.store.open_state(plan.tree.end(0)).is_dir()


def test_half_made_text_is_cleared_in_the_store_alone_and_not_while_it_is_written(tmp_path: Path) -> None:
    text, elsewhere = tmp_path / "text", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (text / "text").mkdir(parents=True)
    (text / "tokens").symlink_to(elsewhere)
    (elsewhere / ".precious.tmp").write_text("a user's own")
    living = temporary_name(text / "text" / "key")
    living.mkdir()
    gone = subprocess.run(
        [sys.executable, "-c", "import sys; from pathlib import Path; from replay_sweeps.files import temporary_name\n"
         "made = temporary_name(Path(sys.argv[1])); made.mkdir(); print(made)", str(text / "text" / "other")],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    with only_one(text):
        assert living.is_dir() and not Path(gone).exists()
    assert (elsewhere / ".precious.tmp").exists()


def test_a_gc_that_is_killed_leaves_no_record_of_a_run_without_weights(
    plan_of: Callable[..., StudyPlan], training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    from replay_sweeps.store import gc

    worker_of(plan_of(*GRID), training).work()
    order: list[str] = []
    monkeypatch.setattr(gc, "drop", lambda store, paths, _: order.extend(p.relative_to(store).parts[0] for p in paths))
    gc._collect(training.store, dry_run=False, at_once=True)
    assert set(order) >= {"records", "states"} and order.index("states") > max(
        place for place, kind in enumerate(order) if kind != "states"
    )
    assert list(unneeded_files(training.store, []))  # nothing was removed here


def test_what_is_dropped_at_once_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from replay_sweeps.store import trash

    (tmp_path / "states" / "tree" / "state").mkdir(parents=True)
    seen: list[bool] = []
    monkeypatch.setattr(trash, "remove", lambda _: seen.append((tmp_path / "states" / "tree" / "state").exists()))
    drop(tmp_path, [tmp_path / "states" / "tree" / "state"], at_once=True)
    assert seen == [False]


def test_a_folder_that_cannot_be_put_in_its_place_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "mount"
    final.mkdir()

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(OSError, match="busy"), folder_made_atomically(final) as made:
        (made / "model").write_text("weights")


def test_a_process_that_is_hidden_from_us_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*_: object, **__: object) -> str:
        raise FileNotFoundError

    def not_permitted(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", hidden)
    monkeypatch.setattr(processes.os, "kill", not_permitted)
    assert process_birth(1) == 0


def test_the_name_of_a_study_makes_names_of_files(study_of: Callable[..., object], tmp_path: Path) -> None:
    from replay_sweeps.config import PathsConfig, StudyConfig
    from replay_sweeps.study.resource_checks import folder_problems

    paths = PathsConfig(str(tmp_path / "output"))
    study = StudyConfig()
    assert not list(folder_problems(paths, replace(study, name="plain name"), "true"))
    for name in ("", "a/b", ".hidden", "a\nb", "n" * 230, "\0"):
        assert [where for where, _ in folder_problems(paths, replace(study, name=name), "true")] == ["study.name"]
