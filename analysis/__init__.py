"""Run table → answer: reference curves, effective data multipliers, figures, report. Imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.curves.multiplier import EffectiveDataMultiplier, effective_data_multiplier
    from analysis.curves.reference_curve import CurveError, EffectiveTokens, ReferenceCurve
    from analysis.findings.study import Findings, analyse
    from analysis.runs import load_history, load_runs

_ROOM_OF = {
    "CurveError": "analysis.curves.reference_curve",
    "EffectiveDataMultiplier": "analysis.curves.multiplier",
    "EffectiveTokens": "analysis.curves.reference_curve",
    "Findings": "analysis.findings.study",
    "ReferenceCurve": "analysis.curves.reference_curve",
    "analyse": "analysis.findings.study",
    "effective_data_multiplier": "analysis.curves.multiplier",
    "load_history": "analysis.runs",
    "load_runs": "analysis.runs",
}

__all__ = [
    "CurveError",
    "EffectiveDataMultiplier",
    "EffectiveTokens",
    "Findings",
    "ReferenceCurve",
    "analyse",
    "effective_data_multiplier",
    "load_history",
    "load_runs",
]


def __getattr__(name: str) -> Any:
    """Import a room when one of its names is first used: `import analysis` alone costs milliseconds."""
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    value = getattr(import_module(_ROOM_OF[name]), name)
    globals()[name] = value
    return value
