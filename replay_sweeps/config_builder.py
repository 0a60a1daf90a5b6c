"""Builds the schema from plain values, names every problem, and answers what the schema says of a setting."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal

from replay_sweeps.config import RunConfig
from replay_sweeps.setting import KEY, Role, Setting


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """A hint that names the nearest known name, or all of them when none is near and they are few."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(known)}" if len(known) <= 24 else "see replay-sweep --help"


@functools.cache
def known_settings() -> Mapping[str, Setting]:
    """What each setting says of itself, by its dotted name, in the order of the schema."""
    return dict(settings_of(RunConfig))


def settings_of(schema: type, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """The settings of a group and of the groups in it, by dotted name."""
    for item in dataclasses.fields(schema):
        inner = _dataclass_in(_hints(schema)[item.name])
        if inner:
            yield from settings_of(inner, f"{prefix}{item.name}.")
        elif KEY not in item.metadata:
            raise TypeError(f"{prefix}{item.name} says nothing of itself: declare it by `setting` or `detail`")
        else:
            yield prefix + item.name, item.metadata[KEY]


def column_of(name: str) -> str:
    """The column of the run table that holds a setting."""
    *groups, last = name.split(".")
    return (known_settings()[name].column or last).format(group=groups[-1] if groups else "")


def with_role(role: Role) -> list[str]:
    """The settings of a role in the analysis, in the order of the schema."""
    return [name for name, setting in known_settings().items() if setting.role == role]


def renames_states(name: str) -> bool:
    """Whether another value of a setting gives trained states other names."""
    setting = known_settings()[name]
    return setting.renames_states and setting.only in ("", name.split(".")[0])


@functools.cache
def _dataclass_in(hint: Any) -> type | None:
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)  # type: ignore[return-value]


@functools.cache
def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def build(schema: type, values: Mapping[str, Any], problems: list[tuple[str, str]], prefix: str = "") -> Any:
    """An instance of the dataclass `schema` from plain values.

    Every unknown name, missing value and wrong type is appended to `problems` as (dotted name, what is wrong); the
    result is to be used only when there are none.
    """
    hints = _hints(schema)
    fields = {item.name: item for item in dataclasses.fields(schema)}
    converted: dict[str, Any] = {}
    unknown = sorted(values.keys() - fields.keys())
    problems.extend((prefix + name, f"no such setting; {nearest(name, fields)}") for name in unknown)
    for name, item in fields.items():
        if name not in values:
            if item.default is dataclasses.MISSING:
                problems.append((prefix + name, "needs a value"))
            continue
        converted[name] = _convert(values[name], hints[name], prefix + name, problems)
    try:
        return schema(**converted)
    except TypeError:
        return None


def convert(schema: type, field: str, value: Any, name: str, problems: list[tuple[str, str]]) -> Any:
    """A value for one field of `schema`, as `build` takes it; what is wrong with it is said of `name`."""
    return _convert(value, _hints(schema)[field], name, problems)


_hints = functools.cache(typing.get_type_hints)


def _convert(value: Any, hint: Any, name: str, problems: list[tuple[str, str]]) -> Any:
    if value is None and _is_union(hint):
        return None
    if value == "???" or value is None:
        problems.append((name, "needs a value"))
        return None
    if _is_union(hint):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    inner = _dataclass_in(hint)
    if inner:
        if isinstance(value, Mapping):
            return build(inner, value, problems, f"{name}.")
        problems.append((name, f"{value!r} is not a group of settings"))
        return None
    try:
        return _scalar(value, hint)
    except (ValueError, TypeError, ZeroDivisionError):
        problems.append((name, f"{value!r} is not {_description(hint)}"))
        return None


def _scalar(value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        text = str(value).lower() if isinstance(value, bool) else value
        if text not in typing.get_args(hint):
            raise ValueError
        return text
    if typing.get_origin(hint) is tuple:
        return tuple(_scalar(item, typing.get_args(hint)[0]) for item in value)
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError
        return value
    if isinstance(value, bool):
        if hint is str:
            return str(value).lower()
        raise ValueError
    if hint is Fraction:  # 0.125 and "1/9" are meant exactly; 0.1111111 is meant as 1/9
        return Fraction(str(value)).limit_denominator(10**9)
    if hint is int:
        number = float(value)
        if number != int(number):
            raise ValueError
        return int(value) if not isinstance(value, float) else int(number)
    if hint is float:
        number = float(Fraction(value)) if isinstance(value, str) and "/" in value else float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
        return number
    return str(value)


def _description(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a list of " + _description(typing.get_args(hint)[0]).removeprefix("a ") + "s"
    return {int: "a whole number", float: "a number", Fraction: "a fraction", bool: "true or false"}.get(hint, "a text")


def plain_values(settings: Any) -> Any:
    """Settings as JSON values: fractions as texts."""
    if isinstance(settings, dict):
        return {name: plain_values(value) for name, value in settings.items()}
    return str(settings) if isinstance(settings, Fraction) else settings
