"""The record that each study leaves in a store: which states must stay, and which settings named them."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay_sweeps.config_builder import known_settings, plain_values, renames_states
from replay_sweeps.errors import CannotGoOn, DamagedFile, UserError
from replay_sweeps.files import fingerprint, is_plain_name, put_aside, read_record, usable_folder, write_record
from replay_sweeps.store.marker import mark_store
from replay_sweeps.store.trash import drop
from replay_sweeps.tree.state_name import ShortStateName, StateName
from replay_sweeps.tree.study_plan import StudyPlan

_WHAT_TO_DO = (
    "it may need anything in this store, so nothing is dropped; start that study's command again, which writes it "
    "anew, or give it up: replay-store forget {name}"
)


@dataclass(frozen=True)
class StudyRecord:
    """What one study needs of a store, and the settings that named it."""

    study: str
    output: str  # the study's folder
    complete: bool
    states: frozenset[str]  # paths of all states that are saved or observed
    settings: Mapping[str, Any]  # that shape states and have one value in all runs, by dotted name; and of each text
    varying: tuple[str, ...]  # the other settings
    cells: Mapping[str, str]  # the key of each run's last state, by the values of the varying settings
    runs: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # each run's last state: root, step, key
    texts: frozenset[str] = frozenset()  # folders below that of all text
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by tree: what its states are read into
    keep: str = "leaves"  # its `keep_states`

    @classmethod
    def of(cls, plan: StudyPlan, complete: bool) -> "StudyRecord":
        """The record of a study that is planned."""
        tree = plan.tree
        states = {
            tree.state(index, step).path
            for index, path in enumerate(tree.paths)
            for step in {*(node.stop for node in path.nodes), *path.waypoints(), *tree.observed[index]}
        }
        flat = [dict(_flat(run.config)) for run in plan.runs]
        settings, varying = _shared(flat, plan)
        cells = {cell_name(values, varying): run.key(run.steps) for values, run in zip(flat, plan.runs, strict=True)}
        runs = {run.run_id: [run.root, run.steps, run.key(run.steps)] for run in plan.runs}
        return cls(
            plan.study.name,
            str(plan.study.output.absolute()),
            complete,
            frozenset(states),
            settings,
            varying,
            cells,
            runs,
            plan.text_folders(),
            plan.models(),
            plan.study.runs[0].keep_states,
        )


def _shared(flat: Sequence[Mapping[str, Any]], plan: StudyPlan) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings of one value in all runs, with what the texts and the machine add; the names of the others."""
    names = dict.fromkeys(name for values in flat for name in values)
    varying = tuple(name for name in names if any(values.get(name) != flat[0].get(name) for values in flat))
    shared = {name: value for name, value in flat[0].items() if name not in varying}
    return {**shared, **plan.made_of()}, varying


def cell_name(values: Mapping[str, Any], varying: Sequence[str]) -> str:
    """One text for the values that tell a run from the others of its study."""
    return " ".join(f"{name}={values.get(name)}" for name in sorted(varying))


@functools.cache
def _left_out() -> frozenset[str]:
    """The settings that tell neither a state nor a run from another."""
    return frozenset(name for name, known in known_settings().items() if not (renames_states(name) or known.role))


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of the settings that tell a state or a run from another, by their dotted names."""
    for item in dataclasses.fields(config):
        name, value = prefix + item.name, getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{name}.")
        elif name not in _left_out():
            yield name, plain_values(value)


def _record_file(store: Path, study: str, output: Path | str) -> Path:
    return store / "studies" / f"{study}-{fingerprint(str(Path(output).absolute()))[:8]}.json"


def write_study_record(store: Path, study_record: StudyRecord) -> None:
    """Write a study's record into the store, in place of its former one."""
    record = {**vars(study_record), "states": sorted(study_record.states), "texts": sorted(study_record.texts)}
    mark_store(store)
    file = _record_file(store, study_record.study, study_record.output)
    usable_folder(store / "studies")
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        put_aside(file)
    write_record(file, record)


def keep_texts(store: Path, study: str, output: Path, texts: frozenset[str]) -> None:
    """Add text to the record of a study that is not planned yet, so that nothing collects it.

    `texts` are folders below that of all text. Once the study is planned, `StudyRecord.of` says what stays.
    """
    if not texts:
        return
    try:
        before = _read_file(_record_file(store, study, output))
    except FileNotFoundError:
        before = None
    except DamagedFile:
        return  # nothing is collected while it is damaged; a new one without its states would let them be collected
    known = before or StudyRecord(study, str(output.absolute()), False, frozenset(), {}, (), {})
    if not texts <= known.texts:
        output.mkdir(parents=True, exist_ok=True)  # gc tells of a study whose folder is not there
        write_study_record(store, dataclasses.replace(known, texts=known.texts | texts))


def read_study_record(store: Path, study: str, output: Path) -> StudyRecord | None:
    """The record that a study left when it last ran; None where there is none that can be read."""
    try:
        return _read_file(_record_file(store, study, output))
    except (FileNotFoundError, DamagedFile):
        return None


def study_files(store: Path) -> dict[Path, StudyRecord | str]:
    """The records of all studies in a store, by file; in place of one that cannot be read, why."""
    found: dict[Path, StudyRecord | str] = {}
    folder = store / "studies"
    if os.path.lexists(folder) and not folder.is_dir():
        raise CannotGoOn(
            f"{folder} is not a folder, so that nobody knows what the studies of this store need: bring the folder "
            "back, or move aside what is there and start the studies' commands again, which write it anew"
        )
    for file in sorted(folder.glob("[!.]*.json")) if folder.is_dir() else ():
        try:
            found[file] = _read_file(file)
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            found[file] = str(error)
        except CannotGoOn as error:
            [found[file]] = error.problems
    return found


def kept_for_others(store: Path, study: str, output: Path) -> frozenset[str] | None:
    """Paths of the states that the other studies of a store keep; None where a record cannot be read.

    A finished study under `keep_states=leaves` keeps the last states of its runs; `all`, or unfinished, all of its.
    """
    kept: set[str] = set()
    for file, record in study_files(store).items():
        if isinstance(record, str):
            return None
        if file != _record_file(store, study, output) and record.keep != "none":
            ends = (StateName(*end).path for end in record.runs.values())
            kept.update(ends if record.complete and record.keep == "leaves" else record.states)
    return frozenset(kept)


def study_records(store: Path) -> list[StudyRecord]:
    """The records of all studies in a store. Raises CannotGoOn where one cannot be read: it may need anything."""
    found = study_files(store)
    problems = [f"{why}: {_WHAT_TO_DO.format(name=file.name)}" for file, why in found.items() if isinstance(why, str)]
    if problems:
        raise CannotGoOn(*problems)
    return [record for record in found.values() if isinstance(record, StudyRecord)]


def forget_study(store: Path, wanted: str) -> str:
    """Move a study's record into the trash, and return one line that says so.

    `wanted` is the study's name, its output folder, or the name of its record's file. Raises UserError where no study
    or more than one is called so.
    """
    files = study_files(store)
    found = [file for file, record in files.items() if _is_called(file, record, wanted)]
    if not found:
        raise UserError(f"no study of {store} is called {wanted}: replay-store list names them")
    if len(found) > 1:
        folders = ", ".join(record.output for file in found if isinstance(record := files[file], StudyRecord))
        raise UserError(f"{len(found)} studies are called {wanted}: give the folder of one of them ({folders})")
    drop(store, found, at_once=False)
    return f"forgot {wanted}: the next replay-store gc drops what no other study needs"


def _is_called(file: Path, record: "StudyRecord | str", wanted: str) -> bool:
    if wanted in (file.name, str(file)):
        return True
    return isinstance(record, StudyRecord) and (
        record.study == wanted or Path(record.output) == Path(wanted).expanduser().absolute()
    )


def _read_file(file: Path) -> StudyRecord:
    """A study's record. Raises FileNotFoundError, and DamagedFile for what this version cannot make sense of."""
    record = read_record(file)
    try:
        sets = {name: frozenset(record[name]) for name in ("states", "texts")}
        study = StudyRecord(**{**record, **sets, "varying": tuple(record["varying"])})
        _check_shape(study)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DamagedFile(f"{file} is not a study's record of this version") from error
    return study


def _check_shape(study: StudyRecord) -> None:
    """Raise ValueError or TypeError where a value is not of the kind that it should be, or a name leads elsewhere."""
    names = [StateName(*state).path for state in study.runs.values()]
    names += study.states
    is_sound = (
        all(isinstance(text, str) for text in (study.study, study.output))
        and isinstance(study.complete, bool)
        and all(isinstance(mapping, dict) for mapping in (study.settings, study.cells, *study.models.values()))
        and all(ShortStateName.parse(name) and all(map(is_plain_name, name.split("/"))) for name in names)
        and all(all(map(is_plain_name, text.split("/"))) for text in study.texts)
    )
    if not is_sound:
        raise ValueError("not a study's record")


def renamed(plan: StudyPlan, before: StudyRecord | None) -> list[dict[str, Any]]:
    """The settings whose change since the study last ran gives runs new keys: setting, from, to; and how many runs."""
    if before is None:
        return []
    flat = [dict(_flat(run.config)) for run in plan.runs]
    settings, varying = _shared(flat, plan)
    new = set(varying) - set(before.varying)
    count = 0
    for values, run in zip(flat, plan.runs, strict=True):
        if all(values.get(name) == before.settings.get(name) for name in new):
            key = before.cells.get(cell_name(values, before.varying))
            count += key is not None and key != run.key(run.steps)
    if not count:
        return []
    return [
        {"setting": name, "from": before.settings[name], "to": value, "runs": count}
        for name, value in settings.items()
        if name in before.settings and before.settings[name] != value
    ]
