"""Run table → answer: reference curves, effective data multipliers, figures, report. Imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.multiplier import EffectiveDataMultiplier, effective_data_multiplier
    from analysis.reference_curve import CurveError, EffectiveTokens, ReferenceCurve
    from analysis.runs import load_history, load_runs
    from analysis.study import Findings, analyse

_ROOM_OF = {
    "CurveError": "analysis.reference_curve",
    "EffectiveDataMultiplier": "analysis.multiplier",
    "EffectiveTokens": "analysis.reference_curve",
    "Findings": "analysis.study",
    "ReferenceCurve": "analysis.reference_curve",
    "analyse": "analysis.study",
    "effective_data_multiplier": "analysis.multiplier",
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
