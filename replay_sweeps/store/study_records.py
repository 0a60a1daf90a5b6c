"""The record that each study leaves in a store: which states must stay, and which settings named them."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay_sweeps.config_builder import known_settings, plain_values, renames_states
from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import fingerprint, read_record, write_record
from replay_sweeps.tree.study_plan import StudyPlan


@dataclass(frozen=True)
class StudyRecord:
    """What one study needs of a store, and the settings that named it."""

    study: str
    output: str  # the study's folder; once it is gone, the garbage collector removes this record
    complete: bool
    states: frozenset[str]  # paths of all states that are saved or observed
    settings: Mapping[str, Any]  # that shape states and have one value in all runs, by dotted name; and of each text
    varying: tuple[str, ...]  # the other settings
    cells: Mapping[str, str]  # the key of each run's last state, by the values of the varying settings
    runs: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # each run's last state: root, step, key
    texts: frozenset[str] = frozenset()  # folders below that of all text
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by tree: what its states are read into

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
    write_record(_record_file(store, study_record.study, study_record.output), record)


def keep_texts(store: Path, study: str, output: Path, texts: frozenset[str]) -> None:
    """Add text to the record of a study that is not planned yet, so that nothing collects it.

    `texts` are folders below that of all text. Once the study is planned, `StudyRecord.of` says what stays.
    """
    if not texts:
        return
    before = read_study_record(store, study, output)
    known = before or StudyRecord(study, str(output.absolute()), False, frozenset(), {}, (), {})
    if not texts <= known.texts:
        output.mkdir(parents=True, exist_ok=True)  # a study is gone when its folder is
        write_study_record(store, dataclasses.replace(known, texts=known.texts | texts))


def read_study_record(store: Path, study: str, output: Path) -> StudyRecord | None:
    """The record that a study left when it last ran, or None."""
    return _read_record_file(_record_file(store, study, output))


def study_records(store: Path) -> list[StudyRecord]:
    """The records of all studies in a store."""
    return [found for file in sorted((store / "studies").glob("*.json")) if (found := _read_record_file(file))]


def remove_study_record(store: Path, study_record: StudyRecord) -> None:
    """Remove a study's record."""
    _record_file(store, study_record.study, study_record.output).unlink(missing_ok=True)


def _read_record_file(file: Path) -> StudyRecord | None:
    try:
        record = read_record(file)
        sets = {name: frozenset(record[name]) for name in ("states", "texts")}
        return StudyRecord(**{**record, **sets, "varying": tuple(record["varying"])})
    except (FileNotFoundError, DamagedFile, TypeError, KeyError):
        return None


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
