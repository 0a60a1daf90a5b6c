"""Does replay help where target and generic text are unrelated? Distance against multiplier and best ρ (study 14)."""

# Shape suffixes in names:
# ruff: noqa: N803

import numpy as np
import pandas as pd

from analysis.curves.forms import Array
from analysis.findings.evidence import Evidence, NotEnoughError
from analysis.findings.mechanisms import loss_before_stage2


def jensen_shannon_divergence(counts_V: Array, other_counts_V: Array) -> float:
    """Jensen–Shannon divergence of two token frequencies, nats, from 0 (equal) to ln 2 (disjoint) (Lin 1991).

    Args: counts of each of V vocabulary entries in two texts, at least zero, not all zero. Raises ValueError otherwise.
    """
    counts = [np.asarray(c, dtype=float).ravel() for c in (counts_V, other_counts_V)]
    if len(counts[0]) != len(counts[1]):
        raise ValueError(f"the counts are over {len(counts[0])} and {len(counts[1])} vocabulary entries")
    if any((c < 0).any() or not np.isfinite(c).all() or c.sum() == 0 for c in counts):
        raise ValueError("counts must be finite, at least zero and not all zero")
    p, q = (c / c.sum() for c in counts)
    middle = (p + q) / 2
    entropies = [float(-(v[v > 0] * np.log(v[v > 0])).sum()) for v in (middle, p, q)]
    return min(max(entropies[0] - (entropies[1] + entropies[2]) / 2, 0.0), float(np.log(2)))


def relatedness(evidence: Evidence) -> pd.DataFrame:
    """How far each target is from the generic text, and what replay is worth there; a row a group of the first group's
    model and mode.

    Columns: target, group, `divergence` (Jensen–Shannon of token frequencies, nats, from study.json), `stage1_loss`
    (target loss where stage 2 begins, ρ = 0, nats), multiplier, low, high, extrapolated, best_replay, rho_low,
    rho_high.

    Raises NotEnoughError where fewer than two targets have a multiplier and a distance.
    """
    divergence = {
        str(s.get("name")): s.get("token_frequency_divergence")
        for s in evidence.sources()
        if s.get("role") != "generic"
    }
    rows = []
    first = evidence.findings.groups[0].label
    for group in evidence.findings.groups:
        if group.headline is None or any(group.label[key] != first[key] for key in ("model", "mode")):
            continue
        headline, result = group.headline, group.headline.multiplier
        baseline = group.runs[group.runs["replay_fraction"] == 0]
        before = loss_before_stage2(baseline, evidence.history, "target_loss").mean()
        distance = divergence.get(str(group.label["target"]))
        rows.append(
            {
                "target": group.label["target"],
                "group": group.name,
                "divergence": float(distance) if isinstance(distance, int | float) else np.nan,
                "stage1_loss": float(before),
                "multiplier": result.value,
                "low": result.low,
                "high": result.high,
                "extrapolated": result.extrapolated,
                "best_replay": float(headline.row["replay_fraction"]),
                "rho_low": headline.rho_low,
                "rho_high": headline.rho_high,
            }
        )
    table = pd.DataFrame(rows)
    if table.empty or table["target"].nunique() < 2:
        raise NotEnoughError("fewer than two targets have a multiplier")
    if table[["divergence", "stage1_loss"]].isna().all(axis=None):
        raise NotEnoughError(
            "study.json names no token_frequency_divergence and no run was observed where stage 2 begins"
        )
    return table
