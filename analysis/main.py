"""replay-analyze: run table → multipliers, figures, report, and the answer on the terminal."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from analysis.errors import UserError, file_problem

if TYPE_CHECKING:
    import pandas as pd


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `replay-analyze`: 0, or 2 with one line per problem on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return _published(options) if options.runs == "published" else _analyse(options)
    except UserError as error:
        for problem in error.problems:
            print(f"replay-analyze: {_one_line(problem)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of a pipe has gone: nothing more can be said to it, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"replay-analyze: {file_problem(error)}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line too."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="replay-analyze",
        description="How much target data is replay worth? Reads a run table, writes multipliers.csv, figures and a "
        "report, and prints the answer.",
    )
    parser.add_argument(
        "runs",
        help="a study's folder, a .parquet or .csv with at least target_tokens, replay_fraction and target_loss, "
        'wandb:ENTITY/PROJECT, or the word "published": the paper\'s points, redrawn',
    )
    parser.add_argument("--out", type=Path, help="where to write (default: the study's folder, or beside the file)")
    parser.add_argument(
        "--form",
        default="auto",
        choices=("auto", "power_law", "pure_power_law", "log", "monotone"),
        help="form of the reference curve (default: auto)",
    )
    parser.add_argument("--level", type=float, default=0.9, help="nominal level of the intervals (default: 0.9)")
    parser.add_argument("--replicates", type=int, default=10_000, help="bootstrap replicates (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument("--study", help="the study to analyse where a table holds several")
    parser.add_argument("--filters", help='JSON filters of W&B runs, such as \'{"group": "quickstart"}\'')
    parser.add_argument("--axis", action="append", default=[], help="a nuisance column to compare, not to tune over")
    return parser


def _analyse(options: argparse.Namespace) -> int:
    from analysis.findings.evidence import Evidence, read_evidence
    from analysis.findings.study import Settings, analyse
    from analysis.report.answer import all_warnings, answer, recommendation_text
    from analysis.report.report import MOST_GROUPS, write_report
    from analysis.runs import load_runs
    from analysis.wandb_table import read_wandb_history

    _check_options(options)
    filters = json.loads(options.filters) if options.filters else None
    runs = load_runs(options.runs, filters)
    if options.study is not None:
        runs = _only_study(runs, options.study)
    settings = Settings(options.form, options.level, options.replicates, options.seed, tuple(options.axis))
    findings = analyse(runs, settings)
    if options.runs.startswith("wandb:"):
        history = read_wandb_history(options.runs.removeprefix("wandb:"), filters)
        out = options.out or Path(options.runs.split("/")[-1] + "_analysis")
        evidence = Evidence(findings, history)
    else:
        source = Path(options.runs)
        out = options.out or (source if source.is_dir() else source.with_name(f"{source.stem}_analysis"))
        evidence = read_evidence(findings, source)
    written = write_report(evidence, out)
    print(_one_line(answer(findings)))
    for group in findings.groups[:MOST_GROUPS]:
        name = f"{group.name}: " if len(findings.groups) > 1 else ""
        print(_one_line(f"{name}{recommendation_text(group)}"))
    for warning in all_warnings(findings) + evidence.warnings():
        print(_one_line(f"  warning: {warning}"))
    print(f"report: {next(path for path in written if path.name == 'report.html')}")
    return 0


def _published(options: argparse.Namespace) -> int:
    from analysis.curves.multiplier import interval_text
    from analysis.published import reproduce, write_published

    _check_options(options)
    out = options.out or Path("published")
    for comparison in reproduce():
        result = comparison.result
        interval = interval_text(result.low, result.high, result.level)
        print(f"Flan, {comparison.name}, form {comparison.form}: {result.value:.2f}× ({interval})")
        if comparison.form == "power_law":
            for warning in result.warnings:
                print(f"  warning: {warning}")
    write_published(out)
    print(f"figures and tables: {out}")
    return 0


def _one_line(text: str) -> str:
    """A text with names from the data as one line, without what a terminal would take for a command."""
    return "".join(character if character.isprintable() else " " for character in text)


def _check_options(options: argparse.Namespace) -> None:
    problems = []
    if not 0 < options.level < 1:
        problems.append(f"--level must lie between 0 and 1, not {options.level:g}")
    if not 100 <= options.replicates <= 1_000_000:
        problems.append(f"--replicates must lie between 100 and 1000000, not {options.replicates}")
    if options.filters:
        try:
            json.loads(options.filters)
        except (ValueError, RecursionError) as error:
            problems.append(f"--filters is no JSON: {error}")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        problems.append(f"--out {options.out} is no folder")
    if problems:
        raise UserError(*problems)


def _only_study(runs: "pd.DataFrame", name: str) -> "pd.DataFrame":
    names = sorted(set(runs["study"].astype(str))) if "study" in runs else []
    if name not in names:
        raise UserError(f"the table has no study {name}; it has {', '.join(names) or 'no study column'}")
    one_study = runs[runs["study"] == name]
    one_study.attrs = runs.attrs
    return one_study


if __name__ == "__main__":
    sys.exit(main())
