"""The published points of the paper, redrawn, and its two multipliers with the interval that it does not give."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.curves.multiplier import EffectiveDataMultiplier, effective_data_multiplier
from analysis.curves.reference_curve import ReferenceCurve
from analysis.files import write_atomically
from analysis.report.figures.canvas import BLUE, GREEN, PURPLE, VERMILION, Drawing, drawer, panels, series_style
from analysis.report.figures.question import draw_curve
from analysis.report.figures.settings import draw_scores

POINTS = Path(__file__).with_name("published_points.csv")
COMPARISONS = (
    ("fine-tuning", "fine-tuning with the best replay", "standard fine-tuning"),
    ("mid-training", "mid-training with the best replay", "mid-training without replay"),
    ("best data schedule", "best data schedule", "mid-training without replay"),
)


@dataclass(frozen=True)
class Reproduction:
    """One published comparison: `name`, the curve's `form`, and the multiplier with its interval and warnings."""

    name: str
    form: str
    result: EffectiveDataMultiplier


def published_points() -> pd.DataFrame:
    """The table of published points: study, subject, series, x_name, x, metric, value, source."""
    return pd.read_csv(POINTS)


def _flan_points() -> tuple[pd.DataFrame, dict[str, float]]:
    """The reference points of Flan, and the loss of each published run (nats)."""
    points = published_points()
    flan = points[points["subject"] == "Flan"]
    runs = flan[flan["study"] == "runs"]
    return flan[flan["series"] == "reference"], dict(zip(runs["series"], runs["value"], strict=True))


def reproduce(forms: tuple[str, ...] = ("power_law", "auto")) -> list[Reproduction]:
    """The paper's multipliers for Flan through each form: 1.87× and 2.06× with the paper's own, "power_law"."""
    reference, losses = _flan_points()
    reproductions = []
    for form in forms:
        curve = ReferenceCurve.fit(reference["x"].to_numpy(), reference["value"].to_numpy(), form)
        for name, candidate, baseline in COMPARISONS:
            result = effective_data_multiplier(
                curve, candidate=losses[candidate], baseline=losses[baseline], n_resamples=10_000
            )
            reproductions.append(Reproduction(name, form, result))
    return reproductions


@drawer
def flan_figure() -> Drawing:
    """The reference curve of Flan (the paper's form) and its published runs with their arrows."""
    reference, losses = _flan_points()
    curve = ReferenceCurve.fit(reference["x"].to_numpy(), reference["value"].to_numpy(), "power_law")
    figure, axes = panels(1, 1, 3.0, width=4.6)
    axis = axes[0, 0]
    draw_curve(axis, curve, [])
    axis.set_xlim(0.3, 24)
    axis.set_ylim(3.22, 3.72)
    colours = {"fine-tuning": VERMILION, "mid-training": BLUE, "best data schedule": GREEN}
    for name, candidate, baseline in COMPARISONS:
        result = effective_data_multiplier(curve, candidate=losses[candidate], baseline=losses[baseline])
        for label, loss, tokens, colour in (
            (baseline, losses[baseline], float(result.baseline_tokens), PURPLE),
            (f"{candidate}: {result.value:.2f}×", losses[candidate], float(result.candidate_tokens), colours[name]),
        ):
            axis.plot([tokens], [loss], "o", color=colour, markersize=3)
            place = {"xytext": (6, 3), "ha": "left"} if tokens < 1.5 else {"xytext": (-5, -6), "ha": "right"}
            axis.annotate(label, (tokens, loss), textcoords="offset points", fontsize=6.5, color=colour, **place)
    axis.set_xlabel("unique target tokens (units of $T$/1024)")
    caption = (
        "Published points for Flan and A·N^(−B) + C through them; runs stand at the target tokens that their loss is "
        "worth. Standard fine-tuning lies outside the reference points."
    )
    return Drawing("flan", "Effective data, Flan", caption, figure)


@drawer
def score_figure(subject: str, name: str, title: str, base: float | None, caption: str) -> Drawing:
    """Published scores of a task against ρ, a line a series."""
    points = published_points()
    points = points[(points["subject"] == subject) & (points["x_name"] == "replay_fraction")]
    series = [(str(s), dict(zip(at["x"], at["value"], strict=True))) for s, at in points.groupby("series", sort=False)]
    figure, axes = panels(1, 1, 2.3)
    draw_scores(axes[0, 0], series, base)
    axes[0, 0].set_ylabel(f"{subject} {points['metric'].iloc[0].replace('_', ' ')}")
    return Drawing(name, title, caption, figure)


@drawer
def weight_decay_figure() -> Drawing:
    """Published WebLINX scores against weight decay (no replay) beside those against ρ."""
    points = published_points()
    points = points[points["subject"] == "WebLINX"]
    figure, axes = panels(1, 2, 2.2, sharey=True)
    for index, (axis, x_name, words) in enumerate(
        zip(axes[0], ("weight_decay", "replay_fraction"), ("weight decay (ρ = 0)", "replay fraction ρ"), strict=True)
    ):
        at = points[points["x_name"] == x_name].sort_values("x")
        axis.plot(at["x"], at["value"], **series_style(index))
        axis.set_xlabel(words)
        axis.axhline(at.loc[at["x"] == 0, "value"].iloc[0], linestyle=":", color="black", linewidth=0.8)
    axes[0, 0].set_ylabel("WebLINX overall score")
    caption = "Weight decay without replay against replay; dotted: standard fine-tuning."
    return Drawing("weblinx_weight_decay", "Is it just regularisation?", caption, figure)


def published_drawings() -> list[Drawing]:
    """What can be redrawn from the published points."""
    points = published_points()
    base = float(points.loc[points["series"] == "base model", "value"].iloc[0])
    lines = "dotted: standard fine-tuning (ρ = 0)"
    return [
        flan_figure(),
        score_figure("WebLINX", "weblinx", "Web navigation at 8B", None, f"WebLINX overall score against ρ; {lines}."),
        weight_decay_figure(),
        score_figure(
            "XCOPA-eu",
            "basque",
            "Basque at 8B",
            base,
            f"Zero-shot XCOPA-eu accuracy against ρ; {lines}; dashed: the base model.",
        ),
    ]


def write_published(out: Path) -> list[Path]:
    """Write published.csv (multipliers), points.csv and figures/*.pdf, *.png to `out`; returns their paths."""
    written = [path for drawing in published_drawings() for path in drawing.save(out / "figures")]
    rows = [
        {
            "comparison": r.name, "form": r.form, "multiplier": r.result.value, "low": r.result.low,
            "high": r.result.high, "level": r.result.level, "extrapolated": r.result.extrapolated,
            "warnings": "; ".join(r.result.warnings),
        }
        for r in reproduce()
    ]  # fmt: skip
    for name, content in (
        ("published.csv", pd.DataFrame(rows).to_csv(index=False)),
        ("points.csv", POINTS.read_text()),
    ):
        write_atomically(out / name, content.encode())
        written.append(out / name)
    return written
