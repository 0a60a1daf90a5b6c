"""A warning is a string for people and a code for programs, whatever is done with it."""

import copy
import json
import pickle

import pytest

from analysis import ReferenceCurve, effective_data_multiplier
from analysis.caveats import Caveat
from tests.analysis.helpers import FLAN_LOSSES, FLAN_TOKENS


def test_a_caveat_is_the_string_that_users_read() -> None:
    caveat = Caveat("edge", "the best lies at the end")
    assert caveat == "edge: the best lies at the end" and isinstance(caveat, str)
    assert (caveat.code, caveat.text) == ("edge", "the best lies at the end")
    assert json.dumps([caveat]) == '["edge: the best lies at the end"]'
    assert caveat.about("maths, 1m") == "edge: the best lies at the end [maths, 1m]"
    assert caveat.about("maths, 1m").code == "edge"


def test_a_caveat_keeps_its_parts_through_copies_and_cannot_be_changed() -> None:
    caveat = Caveat("units", "bits: not nats")
    for same in (copy.deepcopy(caveat), pickle.loads(pickle.dumps(caveat))):
        assert (same, same.code, same.text) == (caveat, "units", "bits: not nats")
    with pytest.raises(AttributeError):
        caveat.code = "edge"  # type: ignore[misc]


def test_warnings_of_curve_tokens_and_result_are_strings_that_begin_with_their_code() -> None:
    curve = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES, form="power_law")
    result = effective_data_multiplier(curve, candidate=3.51, baseline=3.65354)
    for warnings in (curve.warnings, result.warnings, curve.effective_tokens(3.7).warnings):
        assert isinstance(warnings, tuple) and warnings
        assert all(str(warning) == f"{warning.code}: {warning.text}" for warning in warnings)
