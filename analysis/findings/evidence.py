"""What a report is made from: findings, history, and what study.json says of the study."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.caveats import Caveat
from analysis.errors import UserError
from analysis.findings.study import Findings
from analysis.runs import LARGEST, load_history

DEEPEST = 32  # how deep study.json may be nested


class NotEnoughError(ValueError):
    """The table cannot support a figure or a finding; the text says what it lacks."""


@dataclass(frozen=True)
class Evidence:
    """`findings`; `history` (run_id, step, metric, value) or None; `study`, the content of study.json or {}."""

    findings: Findings
    history: pd.DataFrame | None = None
    study: dict[str, Any] = field(default_factory=dict)

    def sources(self) -> list[dict[str, Any]]:
        """The text sources that study.json names."""
        sources = self.study.get("sources", [])
        return [s for s in sources if isinstance(s, dict)] if isinstance(sources, list) else []

    def warnings(self) -> list[Caveat]:
        """What study.json itself says to distrust: settings that were altered, a mix of numerics."""
        caveats = []
        altered = self.study.get("altered")
        if isinstance(altered, list) and altered:
            more = f" and {len(altered) - 4} more" if len(altered) > 4 else ""
            settings = ", ".join(_altered_setting(item) for item in altered[:4])
            caveats.append(Caveat("altered", f"the study was run with changed settings: {settings}{more}"))
        budget = self.study.get("budget")
        if isinstance(budget, dict) and isinstance(budget.get("left_out"), list) and budget["left_out"]:
            left_out = ", ".join(map(str, budget["left_out"]))
            text = f"of the study's grid, what did not fit into {budget.get('budget')}: {left_out}"
            caveats.append(Caveat("budget", text))
        return caveats


def _altered_setting(item: Any) -> str:
    """One changed setting in words."""
    if isinstance(item, dict) and "setting" in item:
        return f"{item['setting']} {item.get('from')} → {item.get('to')}"
    return str(item)


def read_evidence(findings: Findings, path: Path) -> Evidence:
    """Findings with the history and study.json that lie beside the runs at `path`.

    Raises UserError where one of them is damaged.
    """
    return Evidence(findings, load_history(path), read_study(path))


def read_study(path: Path) -> dict[str, Any]:
    """What study.json beside the runs says; {} where there is none. Raises UserError where it is no JSON object."""
    file = (path if path.is_dir() else path.parent) / "study.json"
    if not file.is_file():
        return {}
    try:
        study = _plain_json(json.loads(file.read_text(encoding="utf-8")))
    except RecursionError:
        raise UserError(f"{file} is nested more than {DEEPEST} deep; replay-sweep writes it anew") from None
    except ValueError as error:
        raise UserError(f"{file} is no JSON: {error}") from None
    if not isinstance(study, dict):
        raise UserError(f"{file} must hold a JSON object")
    return study


def _plain_json(value: Any, depth: int = 0) -> Any:
    """A JSON value whose texts can be written in any encoding. Raises RecursionError where it is nested too deeply."""
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        return {_plain_json(name): _plain_json(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain_json(inner, depth + 1) for inner in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def text_in(study: dict[str, Any], name: str) -> str:
    """A text of study.json, "" where it has none of this name."""
    value = study.get(name)
    return value if isinstance(value, str) else ""


def number_or_nan(value: Any) -> float:
    """A number of study.json, NaN for anything else and for what is out of all bounds."""
    if isinstance(value, int | float) and -LARGEST <= value <= LARGEST:
        return float(value)
    return float("nan")
