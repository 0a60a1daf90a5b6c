"""Intervals of nominal 90 % hold the truth about 90 % of the time; docs/analysis-calibration.md has the whole table."""

import pytest

from benchmarks.analysis_coverage import CASES, Case, coverage_of, record

FAST = (
    Case("power law, B = 0.6", "power_law gaussian", 0.01),
    Case("logarithm", "log residual", 0.01),
    Case("power law, B = 0.3", "auto gaussian", 0.005),
    Case("power law, B = 0.6", "monotone gaussian", 0.005),
)


@pytest.mark.parametrize("case", FAST, ids=lambda case: f"{case.method}, {case.noise}")
def test_ninety_percent_intervals_hold_the_truth_about_ninety_percent_of_the_time(case):
    found = coverage_of(case, simulations=120, n_resamples=400)
    # 120 simulations have a standard error of 2.7 points.
    assert 0.82 <= found.covered <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.method != "naive" and case.noise == 0.01],
    ids=lambda case: f"{case.curve}, {case.method}, {case.noise}, {case.seeds}",
)  # fmt: skip
def test_coverage_lies_between_85_and_95_percent_per_method(case):
    whole = case.method == "whole study"
    found = coverage_of(case, simulations=80 if whole else 200, n_resamples=300, seed=1)
    assert 0.85 - found.standard_error <= found.covered <= 0.95 + 1.5 * found.standard_error


def test_what_is_usually_done_covers_far_too_seldom():
    found = coverage_of(Case("power law, B = 0.6", "naive", 0.01), simulations=150, n_resamples=300)
    assert found.covered < 0.5


def test_a_record_holds_case_and_coverage():
    case = Case("logarithm", "log gaussian", 0.01)
    row = record(case, coverage_of(case, simulations=5, n_resamples=100))
    assert row["curve"] == "logarithm" and row["simulations"] == 5 and 0 <= row["covered"] <= 1
