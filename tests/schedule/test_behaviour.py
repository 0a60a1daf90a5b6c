"""What is done at a step: two runs share a state exactly where they did the same at all steps before it."""

from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from replay_sweeps.schedule.behaviour import Behaviour, TargetOrder, behaviour, first_difference, key
from replay_sweeps.schedule.data_schedule import room, stage2_alone, two_stages
from replay_sweeps.schedule.learning_rate import LRSchedule
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.prefix_tree import heavy_paths, prefix_tree, walk


@st.composite
def behaviours(draw: st.DrawFn) -> Behaviour:
    """Short runs drawn from few values, so that many share their beginnings."""
    batch_rows = 4
    rows, epochs = draw(st.sampled_from([2, 4])), draw(st.sampled_from([1, 2, 4]))
    rho = draw(st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(3, 4)]))
    alpha = draw(st.sampled_from([Fraction(1), Fraction(1, 2)]))
    order = TargetOrder("target", 0, draw(st.integers(0, 1)), rows)
    law = LRSchedule(draw(st.sampled_from(["wsd", "constant", "cosine"])), 1.0, 0.0, 2, draw(st.sampled_from([2, 5])))
    mode = draw(st.sampled_from(["mid_train", "fine_tune", "from_pretrained"]))
    if mode == "from_pretrained":
        data = stage2_alone(batch_rows, rows, epochs, rho)
        return behaviour(data, law.pieces(0, data.steps), 0.1, order, None)
    total = draw(st.sampled_from([40, 80]))
    assume(room(total, rows, epochs, rho, alpha) is None)
    data = two_stages(total, batch_rows, rows, epochs, rho, alpha)
    if mode == "mid_train":
        return behaviour(data, law.pieces(0, data.steps), 0.1, order, None)
    begin = data.stage2_step
    pieces = law.pieces(0, begin) + law.pieces(begin, data.steps)
    return behaviour(data, pieces, 0.1, order, begin or None)


def actions(run: Behaviour) -> list[str]:
    """What is done at each step, step by step: the slow, obvious form."""
    found = []
    for step in range(run.steps):
        piece = run.piece_at(step)
        begins = piece.start if step == piece.start else None
        mixes = piece.mixes
        found.append(repr((mixes, piece.rate, piece.weight_decay, piece.reset, begins if piece.reset else None)))
    return found


def shared(one: list[str], other: list[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def planned(run: Behaviour, root: str = "root") -> PlannedRun:
    return PlannedRun("id", None, None, run, root, "target", "generic", (), {}, 0)  # type: ignore[arg-type]


@given(behaviours(), behaviours())
def test_the_first_difference_is_where_a_comparison_step_by_step_finds_it(one: Behaviour, other: Behaviour) -> None:
    assert first_difference(one, other) == first_difference(other, one) == shared(actions(one), actions(other))


@given(behaviours(), behaviours(), st.data())
def test_keys_are_equal_exactly_while_behaviours_are(one: Behaviour, other: Behaviour, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, min(one.steps, other.steps)))
    same = key("root", one, step) == key("root", other, step)
    assert same == (step <= first_difference(one, other))
    assert key("root", one, step) != key("another root", one, step)


@given(behaviours())
def test_pieces_leave_no_gap_and_equal_neighbours_are_merged(run: Behaviour) -> None:
    assert run.pieces[0].start == 0
    for one, after in zip(run.pieces, run.pieces[1:], strict=False):
        assert one.stop == after.start < after.stop
        assert not one.same_action(after) or after.reset


@given(st.lists(behaviours(), min_size=1, max_size=12))
def test_the_tree_holds_each_distinct_step_once_and_each_run_whole(runs: list[Behaviour]) -> None:
    plans = [planned(run) for run in runs]
    roots = prefix_tree(plans)
    distinct = {tuple(actions(run)[:step]) for run in runs for step in range(1, run.steps + 1)}
    assert sum(node.stop - node.start for node in walk(roots)) == len(distinct)
    ends = {index: node for node in walk(roots) for index in node.runs}
    for index, run in enumerate(plans):
        chain = list(ends[index].chain())
        assert chain[0].stop == run.steps and chain[-1].start == 0
        for node in chain:
            assert node.parent is None or node.parent.stop == node.start
            assert plans[node.run].key(node.stop) == run.key(node.stop)


@given(st.lists(behaviours(), min_size=1, max_size=12))
def test_heavy_paths_cover_the_tree_once_and_start_where_an_earlier_one_passed(runs: list[Behaviour]) -> None:
    roots = prefix_tree([planned(run) for run in runs])
    seen: set[int] = set()
    for path in heavy_paths(roots):
        assert path[0].parent is None or id(path[0].parent) in seen
        assert not path[-1].children
        assert not seen & {id(node) for node in path}
        seen |= {id(node) for node in path}
    assert seen == {id(node) for node in walk(roots)}


@given(st.lists(behaviours(), min_size=1, max_size=8), behaviours())
def test_adding_a_run_renames_no_state(runs: list[Behaviour], added: Behaviour) -> None:
    def keys(of: list[Behaviour]) -> set[str]:
        plans = [planned(run) for run in of]
        return {plans[node.run].key(node.stop) for node in walk(prefix_tree(plans))}

    assert keys(runs) <= keys([*runs, added])


def test_other_roots_make_other_trees() -> None:
    data = two_stages(40, 4, 2, 2, Fraction(0), Fraction(1))
    run = behaviour(data, LRSchedule("constant", 1.0, 0.0, 0).pieces(0, 10), 0.1, TargetOrder("t", 0, 0, 2), None)
    assert len(prefix_tree([planned(run, "one"), planned(run, "two")])) == 2
