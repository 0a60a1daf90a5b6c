"""How the store spells the names of states and observations. No other module cuts a root or a key.

states/<tree>/<step>-<key>                 16 digits of the root; the step in 9 decimal digits; 32 digits of the key
observations/<tree>/<step>-<key>-<store>   24 digits of the key and 24 of the validation store's fingerprint
A key itself is made by `key` in schedule/behaviour.py.
"""

import re
from dataclasses import dataclass

_TREE_DIGITS, _KEY_DIGITS, _OBSERVATION_DIGITS = 16, 32, 24
_STATE_PATH = re.compile(r"(?P<tree>[^/]+)/(?P<step>[0-9]+)-(?P<key>[^-/]+)")


def tree_of(root: str) -> str:
    """The name of the folders that hold what is known of all states of a root."""
    return root[:_TREE_DIGITS]


@dataclass(frozen=True)
class StateName:
    """A state: the root of its tree, how many optimizer steps were done, and the hash of what was done."""

    root: str
    step: int
    key: str

    @property
    def tree(self) -> str:
        """The folder of all states of its root."""
        return tree_of(self.root)

    @property
    def name(self) -> str:
        """Its name within the folder of its tree."""
        return f"{_padded(self.step)}-{self.key[:_KEY_DIGITS]}"

    @property
    def path(self) -> str:
        """Its name within a store."""
        return f"{self.tree}/{self.name}"


@dataclass(frozen=True)
class ShortStateName:
    """The name of a state as it is read back from the store, which keeps but the first digits of root and key."""

    tree: str
    step: int
    key: str

    @classmethod
    def of(cls, tree: str, step: int, key: str) -> "ShortStateName":
        """The name of the state of a tree after `step` steps with this key, whole or short."""
        return cls(tree, step, key[:_KEY_DIGITS])

    @classmethod
    def parse(cls, path: str) -> "ShortStateName | None":
        """The state with this path within a store, or None where the path is not that of a state."""
        found = _STATE_PATH.fullmatch(path)
        return cls(found["tree"], int(found["step"]), found["key"]) if found else None

    @property
    def name(self) -> str:
        """Its name within the folder of its tree."""
        return f"{_padded(self.step)}-{self.key}"

    @property
    def path(self) -> str:
        """Its name within a store."""
        return f"{self.tree}/{self.name}"


def observation_name(state: StateName, store: str) -> str:
    """The name of the losses of a state on the validation store with this fingerprint."""
    return f"{observation_prefix(state)}-{store[:_OBSERVATION_DIGITS]}"


def observation_prefix(state: StateName | ShortStateName) -> str:
    """What the names of all observations of a state begin with."""
    return f"{_padded(state.step)}-{state.key[:_OBSERVATION_DIGITS]}"


def prefix_of_observation(name: str) -> str:
    """The part of an observation's name that tells its state. Raises ValueError where it is no observation's name."""
    step, key, *_ = name.split("-")
    return f"{step}-{key}"


def _padded(step: int) -> str:
    return f"{step:09d}"
