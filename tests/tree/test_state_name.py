"""A state's name is spelled in one place, and read back as it was spelled."""

from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.tree.state_name import (
    ShortStateName,
    StateName,
    observation_name,
    observation_prefix,
    prefix_of_observation,
    tree_of,
)

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
STATES = st.builds(StateName, DIGESTS, st.integers(0, 10**10), DIGESTS)


def test_names_on_disk_are_spelled_as_they_always_were() -> None:
    state = StateName("0123456789abcdef" * 4, 1200, "fedcba9876543210" * 4)
    assert state.tree == tree_of(state.root) == "0123456789abcdef"
    assert state.path == "0123456789abcdef/000001200-fedcba9876543210fedcba9876543210"
    assert observation_name(state, "abcdefgh" * 8) == "000001200-fedcba9876543210fedcba98-abcdefghabcdefghabcdefgh"


@given(STATES)
def test_a_path_is_read_back_as_the_state_that_it_was_spelled_from(state: StateName) -> None:
    short = ShortStateName.parse(state.path)
    assert short == ShortStateName.of(state.tree, state.step, state.key)
    assert short is not None and (short.tree, short.step) == (state.tree, state.step)
    assert state.key.startswith(short.key)
    assert (short.name, short.path) == (state.name, state.path)


@given(STATES, DIGESTS)
def test_an_observation_tells_its_state_by_the_whole_name_and_by_the_short_one(state: StateName, store: str) -> None:
    short = ShortStateName.parse(state.path)
    assert short is not None
    assert prefix_of_observation(observation_name(state, store)) == observation_prefix(state)
    assert observation_prefix(short) == observation_prefix(state)


def test_what_is_not_the_path_of_a_state_is_not_read_as_one() -> None:
    half_written = "tree/.000000001-key.1.tmp"
    for path in ("", "tree", "tree/12", "tree/-key", "tree/x-key", half_written, "a/b/1-key", "tree/1-a-b"):
        assert ShortStateName.parse(path) is None
