"""The values of a grid's cells: each distinct choice of groups is composed once, and a cell's values are set on it."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import build, column_of, convert, with_role
from replay_sweeps.errors import UserError, one_line
from replay_sweeps.models.pretrained import SHAPE
from replay_sweeps.packages import package_folder
from replay_sweeps.study.command import GROUPS, Command, config_folder

Cell = Mapping[str, Any]  # the swept settings of one run, group names included
# N, in one way or another: one that is given takes the place of the others
SIZES_OF_TARGET = tuple(name for name in with_role("axis") if column_of(name) == "target_tokens")


def register_resolvers() -> None:
    """Let the files of `conf/` name an installed package's folder: ${package:NAME}."""
    OmegaConf.register_new_resolver("package", lambda name: str(package_folder(name)), replace=True)


class Composer:
    """Composes each distinct choice of groups once; the value of a cell is set on the result."""

    def __init__(self, command: Command, loader: ConfigLoader) -> None:
        self.command, self.loader = command, loader
        self.composed: dict[tuple[str, ...], tuple[dict[str, Any], RunConfig | None]] = {}
        self.base = self._compose(())
        for name in command.values:
            if name.startswith("hydra.launcher."):
                _resolved(self.base, name)

    def _compose(self, choices: Iterable[str], scaled: bool = True) -> DictConfig:
        fixed = [item for item in self.command.fixed if scaled or not item.startswith("+scale=")]
        try:
            return self.loader.load_configuration(
                config_name="config", overrides=[*_without(fixed, choices), *choices], run_mode=RunMode.RUN
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())) from error

    def run(self, cell: Cell) -> tuple[RunConfig | None, list[tuple[str, str]]]:
        """The run of a cell, or what is wrong with its names and types."""
        groups = tuple(f"{name}={value}" for name, value in cell.items() if name in GROUPS)
        if groups not in self.composed:
            self.composed[groups] = self._compose_and_build(groups)
        values, built = self.composed[groups]
        settings = {name: value for name, value in cell.items() if name not in GROUPS}
        if built is not None:
            return _with_values(built, settings)
        values = _copy(values)
        for name, value in settings.items():
            _set(values, name, value)
        problems = [*_without_effect(values, {**self._given(), **settings})]
        return build(RunConfig, values, problems), problems

    def _compose_and_build(self, groups: tuple[str, ...]) -> tuple[dict[str, Any], RunConfig | None]:
        """The values of a choice of groups, and the run that they make; None where something is wrong or missing."""
        given = self._given()
        values = self._scaled(_plain(self._compose(groups) if groups else self.base), given)
        if any(name in given for name in SIZES_OF_TARGET):
            for name in SIZES_OF_TARGET:
                if name not in given:
                    _set(values, name, None)
        problems = [*_without_effect(_copy(values), given)]
        run = build(RunConfig, values, problems)
        return values, run if not problems else None

    def _scaled(self, values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The values without their `scaled` parts, which replace what they name where a scale is chosen.

        A text of the hub, or a study, says there what stands in for it; what the command line gives stays.
        """
        for place in ("model", "schedule", "target", "generic", ""):
            group = values[place] if place else values
            changes = {name: value for name, value in group.pop("scaled", {}).items() if name != "grids"}
            for name in _names(changes):
                full = f"{place}.{name}" if place else name
                if values["scale"] and full not in given:
                    _set(values, full, _get(changes, name))
        return values

    def _given(self) -> dict[str, Any]:
        """What the command line sets, fixed or swept."""
        return {**self.command.values, **self.command.swept}

    def line(self, name: str, message: str, cell: Cell) -> str:
        """One problem in one line: the setting, its value, where that was set, what is wrong."""
        groups = tuple(f"{key}={value}" for key, value in cell.items() if key in GROUPS)
        value = cell.get(name, _get(self.composed[groups][0], name))
        if value == "???" or isinstance(value, dict):
            return f"{name} ({self._origin(name, cell)}): {message}"
        return f"{name}={'null' if value is None else value} ({self._origin(name, cell)}): {message}"

    def _origin(self, name: str, cell: Cell) -> str:
        if name in self.command.values or name in self.command.swept:
            return "command line"
        chosen = self.base.hydra.runtime.choices
        if name in cell:
            return f"grid of conf/study/{chosen.study}.yaml"
        for group in ("scale", "study"):
            if chosen.get(group):
                file = config_folder() / group / f"{chosen[group]}.yaml"
                if _get(yaml.safe_load(file.read_text()), name, missing=_MISSING) is not _MISSING:
                    return f"conf/{group}/{chosen[group]}.yaml"
        group = name.split(".")[0]
        return f"conf/{group}/{cell.get(group, chosen.get(group))}.yaml" if group in chosen else "conf/config.yaml"

    def altered(self) -> Iterator[dict[str, Any]]:
        """The settings that `+scale=` changed, those of a choice in the grid with the choice's name."""
        if not self.base.get("scale"):
            return
        said, given = set(), self._given()
        for groups in self.composed:
            before = _plain(self._compose(groups, scaled=False))
            before, after = self._scaled(before, given), self._scaled(_plain(self._compose(groups)), given)
            for name in _names(after):
                old, new = _get(before, name), _get(after, name)
                choice = next((c.partition("=")[2] for c in groups if c.startswith(f"{name.split('.')[0]}=")), None)
                shown = f"{name} ({choice})" if choice else name
                # a given model has a shape of its own
                without_effect = after["model"]["path"] and name.removeprefix("model.") in SHAPE
                if old != new and name != "scale" and shown not in said and not without_effect:
                    said.add(shown)
                    yield {"setting": shown, "from": old, "to": new}
        yield from _grid_changes(self.base, given)


def _without(fixed: Sequence[str], choices: Iterable[str]) -> list[str]:
    """The fixed overrides without those of a group that the cell chooses."""
    chosen = {choice.split("=")[0] for choice in choices}
    return [item for item in fixed if item.lstrip("+").split("=")[0] not in chosen]


def grids_of(base: DictConfig, command: Command) -> list[dict[str, list[Any]]]:
    """The study's union of products, with the command line's values in place of the study's."""
    given = {**command.values, **command.swept}
    replaced = {*given, *(SIZES_OF_TARGET if any(name in given for name in SIZES_OF_TARGET) else ())}
    found = []
    for grid in _study_grids(base, bool(base.get("scale"))) or [{}]:
        kept = {name: values for name, values in grid.items() if name not in replaced}
        found.append({**{n: v if isinstance(v, list) else [v] for n, v in kept.items()}, **command.swept})
    return found


def _study_grids(base: DictConfig, scaled: bool) -> list[dict[str, Any]]:
    """The grids of the study file, or those that it has for a smaller scale."""
    grids = base.get("scaled", {}).get("grids") if scaled else None
    found: Any = OmegaConf.to_container(base.hydra.sweeper.grids if grids is None else grids)
    return found


def _grid_changes(base: DictConfig, given: Collection[str]) -> Iterator[dict[str, Any]]:
    """The swept settings that have other values at the smaller scale."""
    before, after = (_study_grids(base, scaled) for scaled in (False, True))
    for name in dict.fromkeys(name for grid in before for name in grid if name not in given):
        old, new = ([value for grid in grids for value in grid.get(name, [])] for grids in (before, after))
        if old != new:
            yield {"setting": f"{name} (grid)", "from": old, "to": new}


def product(grid: Mapping[str, Sequence[Any]]) -> Iterator[Cell]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _without_effect(values: dict[str, Any], given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Settings given for a stage that has no learning-rate schedule of its own; the stage is left null."""
    for stage in ("stage1", "stage2"):
        if "law" not in (values["schedule"][stage] or {"law": None}):
            values["schedule"][stage] = None
            for name in given:
                if name.startswith(f"schedule.{stage}."):
                    yield name, f"has no effect in mode {values['schedule']['mode']}: it has no schedule for {stage}"


_MISSING = object()


def _resolved(config: DictConfig, name: str) -> Any:
    """The value of one setting. Raises UserError where its ${…} cannot be replaced."""
    try:
        value = OmegaConf.select(config, name)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise UserError(f"{name}: its ${{…}} cannot be replaced: {one_line(error, most=None)}") from error


def _plain(config: DictConfig) -> dict[str, Any]:
    names = [str(name) for name in config if name != "hydra"]
    config = OmegaConf.masked_copy(config, names)
    while True:
        try:
            plain: Any = OmegaConf.to_container(config, resolve=True)
            return plain
        except InterpolationToMissingValueError as error:  # the value that it refers to is what is said to be missing
            OmegaConf.update(config, str(error.full_key), "")
        except OmegaConfBaseException as error:  # ${…} that names nothing, or itself
            raise UserError(f"{error.full_key}: its ${{…}} cannot be replaced: {one_line(error, most=None)}") from error


def _copy(values: Any) -> Any:
    return {name: _copy(value) for name, value in values.items()} if isinstance(values, dict) else values


def _get(values: Any, name: str, missing: Any = None) -> Any:
    for part in name.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return missing
        values = values[part]
    return values


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for part in parents:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[last] = value


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _with_values(config: Any, settings: Mapping[str, Any]) -> tuple[Any, list[tuple[str, str]]]:
    """`config` with some leaves replaced by converted values; much faster than building it anew."""
    problems: list[tuple[str, str]] = []
    for name, value in settings.items():
        config = _with_value(config, name.split("."), value, name, problems)
    return config, problems


def _with_value(config: Any, path: Sequence[str], value: Any, name: str, problems: list[tuple[str, str]]) -> Any:
    if config is None:
        problems.append((name, "must not be set: its group is null here"))
        return config
    if len(path) > 1:
        inner = _with_value(getattr(config, path[0]), path[1:], value, name, problems)
    else:
        wrong: list[tuple[str, str]] = []
        inner = convert(type(config), path[0], value, name, wrong)
        problems.extend(wrong)
        if wrong:
            return config
    return dataclasses.replace(config, **{path[0]: inner})
