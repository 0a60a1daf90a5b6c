"""What to distrust about a result: a code for programs and a text for people."""

from typing import Literal

Code = Literal[
    "altered",
    "binned",
    "borrowed_curve",
    "bound_hit",
    "budget",
    "choice_on_reported_loss",
    "degenerate",
    "diverged",
    "edge",
    "edge_replay",
    "extrapolation",
    "few_points",
    "fewer_points_than_parameters",
    "form_matters",
    "incomplete",
    "interval_extrapolates",
    "lack_of_fit",
    "no_curve",
    "no_interval",
    "not_identified",
    "not_monotone",
    "one_sided",
    "repeats",
    "seeds_differ",
    "seeds_unpaired",
    "units",
    "untuned",
]


class Caveat(str):
    """One warning of the analysis: the string "code: text" that users read, with its parts.

    It prints, joins and goes into tables as a string. Programs compare `code` and never read the text, so that a
    sentence may be reworded. docs/analysis.md explains every code.
    """

    __slots__ = ("_code", "_text")
    _code: Code
    _text: str

    def __new__(cls, code: Code, text: str) -> "Caveat":
        caveat = super().__new__(cls, f"{code}: {text}")
        caveat._code, caveat._text = code, text
        return caveat

    def __getnewargs__(self) -> tuple[Code, str]:  # type: ignore[override]
        """What copy and pickle call `__new__` with."""
        return self._code, self._text

    @property
    def code(self) -> Code:
        """The name of the warning."""
        return self._code

    @property
    def text(self) -> str:
        """The sentence without the name."""
        return self._text

    def about(self, group: str) -> "Caveat":
        """The same with the name of the group of runs that it is about."""
        return Caveat(self._code, f"{self._text} [{group}]")
