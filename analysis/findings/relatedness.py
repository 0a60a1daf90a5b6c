"""How far a target is from the generic text, beside what replay is worth there and the best ρ (study 14)."""

import pandas as pd

from analysis.findings.evidence import Evidence, NotEnoughError, number_or_nan
from analysis.findings.mechanisms import loss_before_stage2


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
    done = evidence.findings.done  # of all groups at once: each look at the history reads the whole of it
    before = loss_before_stage2(done[done["replay_fraction"] == 0], evidence.history, "target_loss")
    for group in evidence.findings.groups:
        if group.headline is None or any(group.label[key] != first[key] for key in ("model", "mode")):
            continue
        headline, result = group.headline, group.headline.multiplier
        baseline = group.runs[group.runs["replay_fraction"] == 0]
        distance = divergence.get(str(group.label["target"]))
        rows.append(
            {
                "target": group.label["target"],
                "group": group.name,
                "divergence": number_or_nan(distance),
                "stage1_loss": float(before.loc[baseline.index].mean()),
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
