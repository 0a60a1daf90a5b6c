"""The names of states and of what is known of them, as the store spells them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StateName:
    """A state: the root of its tree, how many optimizer steps were done, and the hash of what was done."""

    root: str
    step: int
    key: str

    @property
    def tree(self) -> str:
        """The folder of all states of its root."""
        return self.root[:16]

    @property
    def name(self) -> str:
        return f"{self.step:09d}-{self.key[:32]}"

    @property
    def path(self) -> str:
        return f"{self.tree}/{self.name}"


def observation_name(state: StateName, store: str) -> str:
    """The name of the losses of a state on the token store with this fingerprint."""
    return f"{state.step:09d}-{state.key[:24]}-{store[:24]}"
