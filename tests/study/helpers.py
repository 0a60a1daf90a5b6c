"""Runs of which one setting is changed."""

import typing
from dataclasses import replace
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import convert


def type_of(name: str) -> Any:
    """The declared type of a setting, without null."""
    hint: Any = RunConfig
    for part in name.split("."):
        hint = typing.get_type_hints(hint)[part]
        hint = next((kind for kind in typing.get_args(hint) if type(None) in typing.get_args(hint)), hint)
    return hint


def with_value(config: Any, name: str, value: Any) -> Any:
    """The configuration with one setting changed, or None where the setting's group is null or the value is none."""
    first, _, rest = name.partition(".")
    if config is None:
        return None
    if rest:
        inner = with_value(getattr(config, first), rest, value)
        return inner and replace(config, **{first: inner})
    problems: list[tuple[str, str]] = []
    converted = convert(type(config), first, value, name, problems)
    return None if problems else replace(config, **{first: converted})


def value_of(run: RunConfig, name: str) -> Any:
    """The value of a setting; None where its group is null."""
    value: Any = run
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
