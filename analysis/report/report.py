"""The report: one self-contained page that begins with the answer, the same as markdown, and the table behind it."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.curves.form_choice import FORMULAS
from analysis.curves.multiplier import EffectiveDataMultiplier, interval_text, multiplier_text
from analysis.files import write_atomically
from analysis.findings.evidence import Evidence, text_in
from analysis.findings.mechanisms import headline_runs, mechanism_sentences
from analysis.findings.study import Findings, GroupFindings
from analysis.findings.tables import rows as table_rows
from analysis.findings.tuning import Edge, edges_text
from analysis.report.answer import all_warnings, answer, group_answer, percent_text, recommendation_text
from analysis.report.figures import draw_all
from analysis.report.figures.canvas import Drawing, short_tokens
from analysis.report.markdown import code_block, markdown_row, markdown_text
from analysis.spreadsheets import csv_text

MOST_ROWS = 200
MOST_GROUPS = 20


@dataclass(frozen=True)
class Table:
    """A table for people: `title`, `columns`, `rows` of strings, `note`."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


def write_report(evidence: Evidence, out: Path) -> list[Path]:
    """Write multipliers.csv, recommendation.json, figures/*.pdf and *.png, report.html and report.md to `out`; returns
    their paths."""
    findings = evidence.findings
    figures, left_out = draw_all(evidence)
    written = [path for drawing in figures for path in drawing.save(out / "figures")]
    context = report_context(evidence, figures, left_out)
    recommendations = [group.recommendation.as_json() for group in findings.groups if group.recommendation]
    for name, content in (
        ("multipliers.csv", csv_text(findings.multipliers)),
        ("recommendation.json", json.dumps(recommendations, indent=1, ensure_ascii=False) + "\n"),
        ("report.html", _render("report.html.j2", context)),
        ("report.md", _render("report.md.j2", context)),
    ):
        write_atomically(out / name, content.encode(errors="replace"))
        written.append(out / name)
    return written


def report_context(evidence: Evidence, figures: list[Drawing], left_out: list[tuple[str, str]]) -> dict[str, Any]:
    """Everything that the templates show."""
    findings, study = evidence.findings, evidence.study
    return {
        "title": text_in(study, "title") or text_in(study, "name") or _study_name(findings.runs),
        "answer": answer(findings),
        "recommendation": recommendation_text(findings.groups[0]),
        "further_answers": [
            (group.name, f"{group_answer(group)} {recommendation_text(group)}")
            for group in findings.groups[1:MOST_GROUPS]
        ],
        "warnings": all_warnings(findings) + evidence.warnings(),
        "figures": [
            {
                "name": d.name,
                "title": d.title,
                "caption": d.caption,
                "svg": base64.b64encode(d.rendered("svg")).decode(),
                "inches": round(float(d.figure.get_size_inches()[0]), 2),
            }
            for d in figures
        ],
        "left_out": left_out,
        "tables": [
            t for group in findings.groups[:MOST_GROUPS] for t in _group_tables(group, len(findings.groups) > 1)
        ],
        "provenance": _provenance(findings, study),
        "sources": [_source_text(source) for source in evidence.sources()],
        "mechanisms": mechanism_sentences(headline_runs(findings)[0], evidence.history),
        "law": _optimum_law_text(findings),
        "method": _method(findings),
        "command": text_in(study, "command"),
    }


def _study_name(runs: pd.DataFrame) -> str:
    names = [str(s) for s in runs["study"].unique() if s] if "study" in runs else []
    return names[0] if len(names) == 1 else "What replay is worth"


def _group_tables(group: GroupFindings, named: bool) -> list[Table]:
    suffix = f": {group.name}" if named else ""
    tables = []
    if len(group.results):
        columns = ["N", "ρ", "α", "target loss", "ρ = 0", "generic loss", "worth", "interval", "runs", "chosen"]
        rows = [
            _multiplier_row(row, group.cells.loc[cell, "edges"], group.results[int(cell)])
            for cell, row in table_rows(group.multipliers.head(MOST_ROWS))
        ]
        tables.append(Table(f"Multipliers{suffix}", columns, rows, _note_on_cut(len(group.multipliers))))
    rows = [_cell_row(row) for _, row in table_rows(group.cells.head(MOST_ROWS))]
    columns = ["N", "ρ", "α", "target loss", "generic loss", "settings tried", "chosen", "runs"]
    tables.append(Table(f"Tuned cells{suffix}", columns, rows, _note_on_cut(len(group.cells))))
    if group.curve is not None:
        tables.append(_form_table(group, suffix))
    return tables


def _note_on_cut(rows: int) -> str:
    return f"The first {MOST_ROWS} of {rows:,} rows; the others are in multipliers.csv." if rows > MOST_ROWS else ""


def _multiplier_row(row: "pd.Series[Any]", edges: Any, result: EffectiveDataMultiplier) -> list[str]:
    return [
        short_tokens(row["target_tokens"]),
        percent_text(row["replay_fraction"]),
        f"{row['stage2_allocation']:g}",
        f"{row['target_loss']:.4f}",
        f"{row['baseline_target_loss']:.4f}",
        _nats(row["generic_loss"]),
        multiplier_text(result),
        interval_text(result.low, result.high, result.level),
        str(row["runs"]),
        _settings_text(row, edges),
    ]


def _cell_row(row: "pd.Series[Any]") -> list[str]:
    return [
        short_tokens(row["target_tokens"]),
        percent_text(row["replay_fraction"]),
        f"{row['stage2_allocation']:g}",
        f"{row['target_loss']:.4f}",
        _nats(row["generic_loss"]),
        str(row["settings"]),
        _settings_text(row, row["edges"]),
        str(row["runs"]),
    ]


def _nats(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "–"


def _settings_text(row: "pd.Series[Any]", edges: tuple[Edge, ...]) -> str:
    """The settings that were chosen for a cell, and which of them lie on the edge of what was tried."""
    words = {"target_epochs": "E", "stage1_lr": "LR 1", "stage2_lr": "LR 2", "weight_decay": "decay"}
    settings = [f"{word} {row[column]:g}" for column, word in words.items() if column in row and pd.notna(row[column])]
    if row.get("lr_schedule"):
        settings.append(str(row["lr_schedule"]))
    return ", ".join(settings) + (f" (edge: {edges_text(edges)})" if edges else "")


def _form_table(group: GroupFindings, suffix: str) -> Table:
    assert group.curve is not None
    rows = [
        [
            FORMULAS[fit.form] + (" ←" if fit.form == group.curve.form else ""),
            ", ".join(f"{name} = {value:.4g}" for name, value in fit.parameters.items()),
            f"{fit.noise:.4f}" if fit.noise is not None else "–",
            f"{fit.aicc:.1f}" if np.isfinite(fit.aicc) else "too few points",
            f"{fit.leave_one_out:.4f}" if np.isfinite(fit.leave_one_out) else "–",
            "; ".join(fit.warnings),
        ]
        for fit in group.curve.alternatives
    ]
    columns = ["form", "parameters", "scatter (nats)", "AICc", "leave-one-out (nats)", "warnings"]
    return Table(f"Forms of the reference curve{suffix}", columns, rows, f"{group.curve.reason}.")


def _provenance(findings: Findings, study: dict[str, Any]) -> list[tuple[str, str]]:
    runs, done = findings.runs, findings.done
    seeds = sorted({s for s in done["seeds"] if s})
    rows = [("runs", f"{len(done):,} analysed of {len(runs):,}")]
    for column, word in (("target", "target"), ("generic", "generic text"), ("model", "model"), ("mode", "mode")):
        values = sorted({str(v) for v in done[column] if v})
        if values:
            rows.append((word, ", ".join(values[:10])))
    if seeds:
        rows.append(("seeds (init/order/subset)", ", ".join(seeds[:10])))
    noise = [g.curve.noise for g in findings.groups if g.curve is not None and g.curve.noise is not None]
    if noise:
        rows.append(("noise", str(noise[0])))
    return rows + [(key, _in_words(study[key])) for key in ("machine", "settings", "versions") if study.get(key)]


def _in_words(value: Any) -> str:
    """A JSON value as plain words: "cores 2; numerics (precision fp32; threads 2)"."""
    if isinstance(value, dict):
        parts = [
            f"{str(key).replace('_', ' ')} " + (f"({_in_words(v)})" if isinstance(v, dict | list) else _in_words(v))
            for key, v in value.items()
            if v not in (None, "", [], {})
        ]
        return "; ".join(parts)
    if isinstance(value, list):
        return ", ".join(_in_words(item) for item in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _source_text(source: dict[str, Any]) -> str:
    """What study.json says of one text source, fingerprints shortened."""
    return _in_words({key: str(v)[:12] if key.endswith("fingerprint") else v for key, v in source.items()})


def _optimum_law_text(findings: Findings) -> str:
    """The fitted ρ*(N, P) in a sentence, "" where the optima do not allow one."""
    law = findings.optimum_law
    if law is None:
        return ""
    words = {"b": "ln N", "c": "ln P"}
    terms = [
        f"{law.coefficients[name]:+.3f}·{words[name]} ({100 * law.level:g} %: {low:+.3f} to {high:+.3f})"
        for name, (low, high) in law.intervals.items()
        if name in words
    ]
    warnings = "".join(f" {caveat.text.capitalize()}." for caveat in law.warnings)
    return (
        f"Best replay over {law.n_points} optima: the stage-2 length −ln(1 − ρ*) changes by {' and '.join(terms)}, "
        f"about its mean {law.coefficients['a']:.3f}.{warnings}"
    )


def _method(findings: Findings) -> list[str]:
    s = findings.settings
    return [
        "For every target size N, share α and replay fraction ρ the nuisance settings (epochs, learning rates, weight "
        "decay, learning-rate schedule) are chosen on the selection half of the validation set, on the mean over "
        "seeds; losses are reported on the other half. Seeds are averaged, never minimised over.",
        "The reference curve goes through the tuned losses without replay. Inside its range a loss is turned into "
        "effective target tokens by monotone interpolation in log N; beyond it by the form named in the table, "
        "and the result is marked as extrapolated."
        if s.form == "auto"
        else f"The reference curve has the form {s.form}, which was asked for.",
        "The multiplier is the ratio of the effective tokens of a run with replay to those of the run without replay "
        f"at the same N. Its {100 * s.level:g} % interval comes from {s.n_resamples:,} bootstrap replicates (seed "
        f"{s.seed}) that redraw every loss and the curve with the noise named below, and the noise itself by its "
        "degrees of freedom.",
        "The range of ρ to keep holds the fractions that win in the central part of the replicates.",
        "The recommendation compares the best replay with the tuned runs without: it is given where Student's interval "
        "of the difference, from the noise of the runs, leaves out zero and both halves of the validation set agree.",
    ]


def _unbroken(text: object) -> str:
    """Text whose numbers are not torn from their per cent sign at the end of a line."""
    return str(text).replace(" %", "\u00a0%")


def _render(template: str, context: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    html = template.endswith(".html.j2")
    environment = Environment(
        loader=loader, autoescape=html, finalize=None if html else markdown_text, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"unbroken": _unbroken, "table_row": markdown_row, "code_block": code_block}
    return environment.get_template(template).render(**context)
