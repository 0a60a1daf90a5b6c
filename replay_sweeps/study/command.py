"""Reading a command line: every unknown group, choice and setting is found before Hydra stops at the first one."""

import importlib.util
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString, RangeSweep, Sweep
from hydra.errors import HydraException

from replay_sweeps.config_builder import known_settings, nearest
from replay_sweeps.errors import UserError, one_line

GROUPS = (
    "model",
    "target",
    "generic",
    "schedule",
    "optimizer",
    "trainer",
    "logger",
    "evaluation",
    "scale",
    "paths",
    "study",
)
LAUNCHER = "hydra/launcher"
SWEEPER_SETTINGS = ("hydra.sweeper.grids",)
HYDRA_CALLS = (
    "_target_",
    "_args_",
    "_partial_",
    "_recursive_",
    "_convert_",
)  # names by which Hydra finds and runs code
DEEPEST = 12  # how deep brackets may be nested: each further level takes the parser twice as long
MOST_VALUES = 10_000  # of one setting in a sweep


def config_folder() -> Path:
    """`conf/` of the checkout, or of the installed package."""
    package = Path(__file__).parent.parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


def choices(group: str) -> list[str]:
    """The names that a group may be set to."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def settings_with_symbol() -> Iterator[str]:
    """A line for each setting that has a symbol, which are those that studies sweep most."""
    for name, known in known_settings().items():
        if known.symbol:
            yield f"{name:27}{known.symbol}: {known.help}"


@dataclass(frozen=True)
class Command:
    """A command line, read: what is fixed, and what is swept over which values, in the order given."""

    fixed: tuple[str, ...]  # overrides in Hydra's syntax, as composed
    values: dict[str, Any]  # of the fixed settings
    swept: dict[str, list[Any]]
    arguments: tuple[str, ...]  # all of them, as Hydra takes them

    def __str__(self) -> str:
        """The command as a user would type it."""
        return shlex.join(["replay-sweep", *(argument.removeprefix("++") for argument in self.arguments)])


def read_command(arguments: Sequence[str], loader: ConfigLoader | None = None) -> Command:
    """Parse overrides in Hydra's syntax; a comma-separated value is swept over, with or without `-m`.

    Raises UserError with one line for each argument that names something unknown or cannot be read.
    """
    parser = OverridesParser.create(config_loader=loader)
    problems: list[str] = []
    fixed: dict[str, str] = {}
    given: dict[str, str] = {}
    values: dict[str, Any] = {}
    swept: dict[str, list[Any]] = {}
    for argument in arguments:
        if argument in ("-m", "--multirun"):
            continue
        if _depth(argument) > DEEPEST:
            problems.append(f"{argument[:60]}… (command line): brackets are nested more than {DEEPEST} deep")
            continue
        try:
            override = parser.parse_override(argument)
            name, problem = _name(override)
            problem = problem or _too_many_values(override) or _replaced_in_quotes(override._value)
            if problem:
                problems.append(f"{argument} (command line): {problem}")
                continue
            for earlier in (fixed, given, values, swept):
                earlier.pop(name, None)
            given[name] = argument
            if override.is_sweep_override():
                swept[name] = _plain(list(override.sweep_iterator()))
            else:
                fixed[name] = given[name] = _composable(override, argument)
                values[name] = _plain(override.value())
            problems += [
                f"{argument} (command line): {problem}"
                for value in swept.get(name, [values.get(name)])
                if (problem := _choice_problem(name, value))
            ]
        except (HydraException, RecursionError) as error:
            reason = one_line(error, most=None)
            problems.append(f"{argument} (command line): cannot be read as key=value: {reason}")
    if problems:
        raise UserError(*problems)
    return Command(tuple(fixed.values()), values, swept, tuple(given.values()))


def _depth(argument: str) -> int:
    """How deep the brackets of an argument are nested, whatever is quoted."""
    return max(itertools.accumulate((c in "[{(") - (c in ")}]") for c in argument), default=0)


def _name(override: Override) -> tuple[str, str | None]:
    """The group or setting that an override names, and what is wrong with it."""
    name = override.key_or_group
    if override.type == OverrideType.DEL:
        return name, "settings cannot be deleted; give a value"
    known = {*known_settings(), *GROUPS}
    if name.startswith("hydra.launcher.") and (_names_code(name.split(".")) or _names_code(override.value())):
        return name, f"what a launcher runs cannot be set; choose one with {LAUNCHER}={'|'.join(choices(LAUNCHER))}"
    if name in known or name.startswith(("hydra/", "hydra.launcher.")) or name in SWEEPER_SETTINGS:
        return name, None
    if any(setting.startswith(f"{name}.") for setting in known):
        inside = [setting for setting in known if setting.startswith(f"{name}.")]
        return name, f"is a group of settings; set one of {', '.join(sorted(inside))}"
    return name, f"there is no setting or group {name}; {nearest(name, known)}"


def _names_code(value: Any) -> bool:
    """Whether a parsed value, or one inside it, is a name by which Hydra finds code to run, such as `_target_`."""
    if isinstance(value, dict):
        return any(_names_code(part) for item in value.items() for part in item)
    if isinstance(value, list | tuple):
        return any(map(_names_code, value))
    if isinstance(value, Sweep):
        return _names_code(getattr(value, "list", []))
    return str(_plain(value)) in HYDRA_CALLS


def _too_many_values(override: Override) -> str | None:
    """That a range holds more values than a grid can have, said before any of them is made."""
    value = override.value()
    if not isinstance(value, RangeSweep):
        return None
    assert value.start is not None and value.stop is not None
    if not value.step:
        return "the step of a range must not be 0"
    count = (value.stop - value.start) / value.step
    if count <= MOST_VALUES:
        return None
    return f"holds about {count:,.0f} values, more than the {MOST_VALUES:,} that a setting may be swept over"


def _replaced_in_quotes(value: Any) -> str | None:
    """That a quoted text holds `${…}`: Hydra would replace it, though quotes say that it is meant as it stands."""
    if isinstance(value, dict):
        return next(filter(None, map(_replaced_in_quotes, value.values())), None)
    if isinstance(value, list):
        return next(filter(None, map(_replaced_in_quotes, value)), None)
    if isinstance(value, QuotedString) and re.search(r"(?<!\\)(?:\\\\)*\$\{", value.text):
        return "${ in quotes would be replaced all the same; leave the quotes out where that is meant"
    return None


def _choice_problem(name: str, value: Any) -> str | None:
    if name not in (*GROUPS, LAUNCHER):
        return None
    if value not in choices(name):
        return f"there is no {name} {value!r}; {nearest(str(value), choices(name))}"
    return _launcher_problem(value) if name == LAUNCHER else None


def _launcher_problem(value: str) -> str | None:
    """That the package which a launcher comes in is not installed."""
    file = config_folder() / LAUNCHER / f"{value}.yaml"
    settings, extra = yaml.safe_load(file.read_text()), re.search(r"\(extra: (\w+)\)", file.read_text())
    try:
        found = importlib.util.find_spec(settings["_target_"].rpartition(".")[0])
    except ModuleNotFoundError:
        found = None
    return None if found or not extra else f"is not installed: pip install 'replay-sweeps[{extra[1]}]'"


def _composable(override: Override, argument: str) -> str:
    """The override as Hydra's composition takes it: `scale` is added, everything else is set."""
    bare = argument.lstrip("+")
    if override.key_or_group == "scale":
        return f"+{bare}"
    return f"++{bare}" if "." in override.key_or_group and not override.key_or_group.startswith("hydra") else bare


def _plain(value: Any) -> Any:
    """A parsed value as plain Python: quoted strings without their quotes."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "text"):
        return value.text
    return value
