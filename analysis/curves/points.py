"""Reference points: checked, and averaged at each distinct target size."""

from typing import Any

import numpy as np

from analysis.caveats import Caveat
from analysis.curves.forms import Array
from analysis.errors import CurveError

FORMS = ("auto", "power_law", "pure_power_law", "log", "monotone")
MOST_DISTINCT_SIZES = 64


def checked_points(tokens: Any, losses: Any, counts: Any, form: str) -> tuple[Array, Array, Array]:
    """Target tokens, losses (nats) and the runs behind each as arrays of equal length.

    Raises CurveError with one line for each problem, an unknown `form` among them.
    """
    problems = []
    if form not in FORMS:
        problems.append(f"form must be one of {', '.join(FORMS)}, not {form!r}")
    try:
        tokens_n, losses_n = np.asarray(tokens, dtype=float).ravel(), np.asarray(losses, dtype=float).ravel()
        counts_n = np.ones_like(losses_n) if counts is None else np.asarray(counts, dtype=float).ravel()
    except (TypeError, ValueError):
        raise CurveError(*problems, "target tokens, losses and counts must be numbers") from None
    if not len(tokens_n) == len(losses_n) == len(counts_n):
        problems.append(f"{len(tokens_n)} target sizes do not go with {len(losses_n)} losses")
    elif len(tokens_n) == 0:
        problems.append("there are no reference points")
    if not (np.isfinite(tokens_n) & (tokens_n > 0)).all():
        problems.append("target tokens must be finite and above zero")
    if not np.isfinite(losses_n).all():
        problems.append("losses must be finite numbers of nats")
    if not (np.isfinite(counts_n) & (counts_n > 0)).all():
        problems.append("counts must be above zero")
    if problems:
        raise CurveError(*problems)
    return tokens_n, losses_n, counts_n


def distinct_points(tokens: Array, losses: Array, counts: Array) -> tuple[Array, Array, Array, list[Caveat]]:
    """Mean loss at each distinct size with the runs behind it, and what was done to get there.

    Beyond 64 sizes, neighbours in log N are averaged.
    """
    order = np.lexsort((counts, losses, tokens))
    tokens, losses, counts = tokens[order], losses[order], counts[order]
    log_tokens = np.log(tokens)
    steps, group = np.unique(tokens, return_inverse=True)
    caveats = []
    if len(steps) > MOST_DISTINCT_SIZES:
        edges = np.linspace(log_tokens[0], log_tokens[-1], MOST_DISTINCT_SIZES + 1)[1:-1]
        group = np.unique(np.searchsorted(edges, log_tokens, "right"), return_inverse=True)[1]
        binned = f"{len(steps)} target sizes were averaged in {group.max() + 1} steps of log N"
        caveats.append(Caveat("binned", binned))
    total = np.bincount(group, weights=counts).astype(float)
    mean_loss = np.bincount(group, weights=counts * losses) / total
    mean_tokens = np.exp(np.bincount(group, weights=counts * log_tokens) / total) if caveats else steps.astype(float)
    return mean_tokens, mean_loss, total, caveats


def order_caveats(tokens: Array, losses: Array) -> list[Caveat]:
    """A caveat where the loss does not fall from one size to the next."""
    rises = [f"{tokens[i + 1]:.4g} tokens ({losses[i + 1]:.4f} nats)" for i in np.flatnonzero(np.diff(losses) >= 0)]
    if not rises:
        return []
    text = f"the loss does not fall at {', '.join(rises[:4])}; neighbours out of order are pooled"
    return [Caveat("not_monotone", text)]
