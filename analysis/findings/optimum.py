"""The best replay fraction ρ* with an interval, and how it moves with target tokens N and model size P.

Shape suffixes: R replicates, S fractions, M optima.
"""

# Shape suffixes in names:
# ruff: noqa: N803, N806, N815

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.caveats import Caveat
from analysis.curves.forms import Array
from analysis.findings.tables import best, parts


@dataclass(frozen=True)
class Optimum:
    """The best replay fraction at one (N, α).

    `best_replay`, chosen on the selection loss among those tried; (`low`, `high`), between which the best one tried
    lies in the central part of the replicates (all that was tried where there is no estimate of noise); `loss` in nats;
    `smooth`, the vertex of the parabola through the best and its neighbours in −ln(1 − ρ); `smooth_R`, the same in
    each replicate; `edge`, whether the best is the largest tried.
    """

    target_tokens: float
    stage2_allocation: float
    best_replay: float
    low: float
    high: float
    loss: float
    smooth: float
    smooth_R: Array
    edge: bool


def replay_optima(cells: pd.DataFrame, losses_RK: Array | None, level: float) -> list[Optimum]:
    """Optima of every (N, α) with two or more fractions; `losses_RK`, replicates of the cells' losses (nats)."""
    optima = []
    for (tokens, allocation), at in parts(cells, ("target_tokens", "stage2_allocation")):
        if len(at) < 2:
            continue
        at = at.sort_values("replay_fraction")
        rho_S = at["replay_fraction"].to_numpy()
        best_cell = best(at)
        low, high = float(rho_S[0]), float(rho_S[-1])
        smooth_R: Array = np.zeros(0)
        if losses_RK is not None:
            losses_RS = losses_RK[:, at.index]
            winners_R = rho_S[losses_RS.argmin(axis=1)]
            tail = (1 - level) / 2
            low, high = (float(v) for v in np.quantile(winners_R, [tail, 1 - tail], method="inverted_cdf"))
            smooth_R = smooth_optimum(rho_S, losses_RS)
        best_replay = float(best_cell["replay_fraction"])
        smooth = smooth_optimum(rho_S, at["target_loss"].to_numpy()[None])[0]
        optima.append(
            Optimum(
                target_tokens=float(tokens),
                stage2_allocation=float(allocation),
                best_replay=best_replay,
                low=low,
                high=high,
                loss=float(best_cell["target_loss"]),
                smooth=float(smooth),
                smooth_R=smooth_R,
                edge=best_replay == rho_S[-1],
            )
        )
    return optima


def smooth_optimum(rho_S: Array, losses_RS: Array) -> Array:
    """ρ (R,) at the vertex of the parabola through the lowest loss and its neighbours, in stage-2 length −ln(1 − ρ).

    The lowest itself where it lies at an end of what was tried.
    """
    t_S = -np.log1p(-rho_S)
    best_R = losses_RS.argmin(axis=1)
    if len(rho_S) < 3:
        return rho_S[best_R]
    middle_R = np.clip(best_R, 1, len(rho_S) - 2)
    rows = np.arange(len(losses_RS))
    t = [t_S[middle_R + shift] for shift in (-1, 0, 1)]
    y = [losses_RS[rows, middle_R + shift] for shift in (-1, 0, 1)]
    left, right = (y[1] - y[0]) / (t[1] - t[0]), (y[2] - y[1]) / (t[2] - t[1])
    bend = (right - left) / (t[2] - t[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex_R = (t[0] + t[1]) / 2 - left / (2 * bend)
    inside = (best_R == middle_R) & (bend > 0)
    t_best_R = np.where(inside, np.clip(np.nan_to_num(vertex_R), t[0], t[2]), t_S[best_R])
    return -np.expm1(-t_best_R)


@dataclass(frozen=True)
class OptimumLaw:
    """ρ*(N, P): −ln(1 − ρ*) = a + b·ln N + c·ln P, by least squares over the optima of a study.

    `coefficients` a, b, c (c only where model sizes differ; b only where target sizes do); `intervals` at `level`;
    `n_points`; `warnings`; `terms_R`, the coefficients in each replicate; `centres`, the means of ln N and ln P.
    """

    coefficients: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    level: float
    n_points: int
    warnings: tuple[Caveat, ...]
    terms_R: Array
    centres: dict[str, float]

    def at(self, target_tokens: float, parameters: float | None = None) -> tuple[float, float, float]:
        """ρ* with its interval (value, low, high) at N tokens and P parameters."""
        x = [1.0]
        for name, value in (("b", target_tokens), ("c", parameters)):
            if name in self.coefficients:
                if value is None:
                    raise ValueError("this law depends on model size: say how many parameters")
                x.append(float(np.log(value)) - self.centres[name])
        centre = [self.coefficients["a"], *(self.coefficients[n] for n in ("b", "c") if n in self.coefficients)]
        tail = (1 - self.level) / 2
        low, high = np.quantile(self.terms_R @ np.array(x), [tail, 1 - tail])
        value, low, high = (float(-np.expm1(-max(t, 0.0))) for t in (float(np.dot(centre, x)), low, high))
        return value, low, high


def fit_optimum_law(points: list[tuple[Optimum, float]], level: float) -> OptimumLaw:
    """Fit ρ*(N, P) to optima with their model's parameters (NaN where unknown), and to their replicates.

    Raises ValueError where fewer than three optima, or one size only, leave nothing to fit.
    """
    points = [(o, p) for o, p in points if len(o.smooth_R)]
    if len(points) < 3:
        raise ValueError(f"a law for the best ρ needs three optima with noise estimates; there are {len(points)}")
    tokens_M = np.log([o.target_tokens for o, _ in points])
    parameters_M = np.log([p for _, p in points])
    columns, names, centres = [np.ones(len(points))], ["a"], {}
    for name, values_M in (("b", tokens_M), ("c", parameters_M)):
        if np.isfinite(values_M).all() and np.ptp(values_M) > 1e-9:
            centres[name] = float(values_M.mean())
            columns.append(values_M - centres[name])
            names.append(name)
    design = np.column_stack(columns)
    if len(names) == 1:
        raise ValueError("a law for the best ρ needs optima at several target or model sizes")
    if np.linalg.matrix_rank(design) < len(names) or len(points) < len(names) + 1:
        raise ValueError("target and model sizes do not vary independently enough for a law of the best ρ")
    replicates = min(len(o.smooth_R) for o, _ in points)
    t_MR = np.array([-np.log1p(-o.smooth_R[:replicates]) for o, _ in points])
    solve = np.linalg.pinv(design)
    value = solve @ -np.log1p(-np.array([o.smooth for o, _ in points]))
    terms_R = (solve @ t_MR).T
    tail = (1 - level) / 2
    bounds = np.quantile(terms_R, [tail, 1 - tail], axis=0)
    at_edge = sum(o.edge for o, _ in points)
    text = f"{at_edge} of {len(points)} optima are the largest ρ tried; the law is bent towards it"
    caveats = (Caveat("edge_replay", text),) if at_edge else ()
    return OptimumLaw(
        coefficients=dict(zip(names, map(float, value), strict=True)),
        intervals={name: (float(bounds[0, i]), float(bounds[1, i])) for i, name in enumerate(names)},
        level=level,
        n_points=len(points),
        warnings=caveats,
        terms_R=terms_R,
        centres=centres,
    )
