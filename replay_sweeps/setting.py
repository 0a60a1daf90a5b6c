"""What a setting says of itself, in the line that declares it: its meaning, its range, and what it does to states."""

from dataclasses import MISSING, dataclass, field
from fractions import Fraction
from typing import Any, Literal, TypeVar, dataclass_transform, overload

Number = int | float | Fraction
Role = Literal["axis", "nuisance", "seed"]  # what is compared; what is tuned in each cell; what is averaged over
T = TypeVar("T")
KEY = "setting"  # of a dataclass field's metadata


@dataclass(frozen=True)
class Setting:
    """What is known of one setting besides its name, its type and its default."""

    help: str
    minimum: Number | None = None  # the smallest value allowed
    above: Number | None = None  # all values allowed are larger
    maximum: Number | None = None  # the largest value allowed
    below: Number | None = None  # all values allowed are smaller
    unit: str = ""  # where the name does not say it
    symbol: str = ""  # how reports call it: ρ, N/T, seed
    role: Role | None = None  # in the analysis
    column: str = ""  # of the run table, where it is not the setting's own name; {group}: the name of its group
    only: str = ""  # the one group where it has an effect, where several groups have the same settings
    renames_states: bool = True  # whether another value gives trained states other names: a test compares the keys

    def allows(self, value: Any) -> bool:
        """Whether a value is in the range."""
        return not (
            (self.minimum is not None and value < self.minimum)
            or (self.above is not None and value <= self.above)
            or (self.maximum is not None and value > self.maximum)
            or (self.below is not None and value >= self.below)
        )

    @property
    def has_range(self) -> bool:
        return (self.minimum, self.above, self.maximum, self.below) != (None,) * 4

    @property
    def range_text(self) -> str:
        """The range in words, as a message says it."""
        upper = self.maximum if self.maximum is not None else self.below
        if upper is None:
            if self.above == 0:
                return "must be positive"
            if self.minimum == 0:
                return "must not be negative"
            return " ".join(filter(None, [f"must be at least {self.minimum}", self.unit]))
        if self.above is not None:
            return f"must be above {self.above}" + (f", to {upper}" if self.below is None else f" and below {upper}")
        if self.below is None:
            return f"must be from {self.minimum} to {upper}"
        return f"must be at least {self.minimum} and below {upper}"


@overload
def setting(help: str, *, default: T, **known: Any) -> T: ...
@overload
def setting(help: str, **known: Any) -> Any: ...
def setting(help: str, *, default: Any = MISSING, **known: Any) -> Any:
    """A field of a group of settings; without a default, the configuration files must give a value.

    `known` are fields of `Setting`.
    """
    return field(default=default, metadata={KEY: Setting(help, **known)})


@overload
def detail(help: str, *, default: T, **known: Any) -> T: ...
@overload
def detail(help: str, **known: Any) -> Any: ...
def detail(help: str, *, default: Any = MISSING, **known: Any) -> Any:
    """A setting that renames no state: whatever its value, the same states are trained and found again."""
    return setting(help, default=default, renames_states=False, **known)


@dataclass_transform(frozen_default=True, field_specifiers=(setting, detail))
def group(cls: type[T]) -> type[T]:
    """A group of settings: a frozen dataclass whose fields are settings, or groups in turn."""
    return dataclass(frozen=True)(cls)
