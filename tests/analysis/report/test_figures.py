"""Every figure shows what it says, in one style, with the same bytes on a rerun."""

import io
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

from analysis import analyse
from analysis.findings.comparison import best_replay_cells
from analysis.findings.evidence import Evidence
from analysis.findings.study import Settings
from analysis.report.figures import DRAWERS, draw_all, question, scaling, settings
from analysis.report.figures.canvas import Drawing, panels, plain_text, series_style, short_tokens
from analysis.simulate import Truth, simulate_runs

BASELINE = Path(__file__).with_name("baseline")
# The images were made with this release; another one places glyphs differently.
DRAWN_WITH = "3.11.2"
COMPARED = ("reference_curve", "loss_against_replay", "multiplier_against_size", "data_schedules", "shock")


@pytest.fixture(scope="module")
def evidence(full_evidence) -> Evidence:
    return full_evidence


@pytest.fixture(scope="module")
def drawn(evidence) -> dict[str, Drawing]:
    figures, left_out = draw_all(evidence)
    assert left_out == []
    return {figure.name: figure for figure in figures}


def test_a_table_that_holds_everything_supports_every_figure(drawn):
    assert len(drawn) == len(DRAWERS) == 16


def test_a_small_table_leaves_figures_out_with_a_reason(small_findings):
    figures, left_out = draw_all(Evidence(small_findings))
    assert {"reference_curve", "loss_against_replay"} <= {figure.name for figure in figures}
    assert len(figures) + len(left_out) == len(DRAWERS)
    assert all(reason for _, reason in left_out)
    assert ("shock", "there is no history.parquet beside the run table") in left_out


def test_the_reference_curve_shows_its_points_and_an_arrow_as_long_as_the_multiplier(evidence, drawn):
    group = evidence.findings.groups[0]
    axis = drawn["reference_curve"].figure.axes[0]
    points = axis.lines[0]
    np.testing.assert_allclose(points.get_xdata(), group.curve.target_tokens)
    np.testing.assert_allclose(points.get_ydata(), group.curve.losses)
    best = best_replay_cells(group.multipliers).iloc[0]
    arrows = [text for text in axis.texts if getattr(text, "arrow_patch", None) is not None]
    (start, height), (end, same) = arrows[0].xyann, arrows[0].xy
    assert height == same == best["target_loss"]
    assert end / start == pytest.approx(best["multiplier"])


def test_loss_against_replay_dots_the_baseline_and_stars_the_best(evidence, drawn):
    group = evidence.findings.groups[0]
    _, cells = question.replay_series(group)[0]
    axis = drawn["loss_against_replay"].figure.axes[0]
    line, dotted, star = axis.lines[:3]
    np.testing.assert_allclose(line.get_ydata(), cells["target_loss"])
    assert dotted.get_linestyle() == ":" and dotted.get_ydata()[0] == cells["target_loss"].iloc[0]
    best = cells.loc[cells["selection_loss"].idxmin()]
    assert star.get_marker() == "*" and star.get_xdata()[0] == best["replay_fraction"]


def test_figures_over_settings_have_a_panel_for_each_target():
    varied = [
        simulate_runs(
            Truth(floor=floor + 0.05 * decay),
            target_tokens=(16384,),
            replay_tokens=(16384,),
            allocations=(1.0, 0.5),
            seed=number,
            target=target,
            weight_decay=decay,
            lr_schedule=schedule,
        )
        for number, (target, floor) in enumerate((("maths", 3.0), ("code", 3.2)))
        for decay, schedule in ((0.1, "cosine"), (0.4, "cosine"), (0.1, "wsd-0.1"))
    ]
    runs = pd.concat(varied, ignore_index=True)
    runs["run_id"] = [f"run-{number}" for number in range(len(runs))]
    shown = Evidence(analyse(runs, Settings(n_resamples=50)))
    for draw, each in (
        (settings.data_schedules, 1),
        (settings.repetitions, 1),
        (settings.learning_rate_schedules, 1),
        (settings.weight_decay_against_replay, 2),
    ):
        axes = [axis for axis in draw(shown).figure.axes if axis.get_visible() and axis.get_xlabel()]
        titles = [axis.get_title() or (axis.get_legend() and axis.get_legend().get_title().get_text()) for axis in axes]
        assert len(axes) == 2 * each and {"code", "maths"} <= set(titles), draw.__name__


def test_the_heat_map_frames_the_best_cell(evidence, drawn):
    axis = drawn["data_schedules"].figure.axes[0]
    frame = next(patch for patch in axis.patches if patch.get_facecolor()[3] == 0)
    values = axis.images[0].get_array()
    column, row = round(frame.get_x() + 0.48), round(frame.get_y() + 0.46)
    assert values[row, column] == pytest.approx(values.min(), abs=0.01)


def test_the_stage_boundary_is_marked_on_training_curves(drawn):
    for axis in drawn["training_curves"].figure.axes:
        assert any(line.get_linestyle() == ":" for line in axis.lines)


def test_scores_show_standard_fine_tuning_and_the_base_model(drawn):
    levels = {
        (line.get_linestyle(), round(float(line.get_ydata()[0]), 3))
        for line in drawn["accuracy_against_replay"].figure.axes[0].lines
    }
    assert (":", 0.58) in levels and ("--", 0.54) in levels


@pytest.mark.parametrize("kind", ("png", "pdf", "svg"))
def test_a_rerun_gives_identical_bytes(evidence, kind):
    first, second = (scaling.multiplier_against_size(evidence) for _ in range(2))
    assert first.rendered(kind) == second.rendered(kind) == first.rendered(kind)


def test_the_users_own_style_does_not_reach_the_figures(evidence, drawn):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        again = scaling.multiplier_against_size(evidence).rendered("png")
    assert again == drawn["multiplier_against_size"].rendered("png")


def test_text_stays_text_in_pdf_and_width_is_a_column(drawn):
    assert b"Type3" not in drawn["reference_curve"].rendered("pdf")
    widths = {round(float(figure.figure.get_size_inches()[0]), 2) for figure in drawn.values()}
    assert widths <= {3.25, 4.5, 6.5, 6.75}


def test_no_two_series_share_colour_or_marker():
    styles = [series_style(index) for index in range(7)]
    assert len({style["color"] for style in styles}) == len({style["marker"] for style in styles}) == 7


def test_nothing_lies_outside_its_figure(drawn):
    for drawing in drawn.values():
        figure = drawing.figure
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        for axis in (axis for axis in figure.axes if axis.get_visible()):
            box = axis.get_tightbbox(figure.canvas.get_renderer())
            assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2, drawing.name


def test_neighbouring_tick_labels_do_not_overlap(drawn):
    for figure in drawn.values():
        figure.figure.draw_without_rendering()
        renderer = figure.figure.canvas.get_renderer()
        for axis in figure.figure.axes:
            boxes = [t.get_window_extent(renderer) for t in axis.get_xticklabels() if t.get_text() and t.get_visible()]
            boxes = sorted((box for box in boxes if box.width), key=lambda box: box.x0)
            rotated = any(t.get_rotation() for t in axis.get_xticklabels())
            assert rotated or all(a.x1 <= b.x0 + 1 for a, b in pairwise(boxes)), figure.name


@pytest.mark.parametrize("name", COMPARED)
def test_figures_look_as_they_did(drawn, name, tmp_path):
    if matplotlib.__version__ != DRAWN_WITH:
        pytest.skip(f"the images were drawn with matplotlib {DRAWN_WITH}, this is {matplotlib.__version__}")
    image = imread(io.BytesIO(drawn[name].rendered("png")))[::3, ::3, :3]
    path = BASELINE / f"{name}.png"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        imsave(path, image)
    expected = imread(path)[:, :, :3]
    assert image.shape == expected.shape
    assert 255 * np.sqrt(np.mean((image - expected) ** 2)) <= 1


@pytest.mark.parametrize("extrapolated", ((False, False), (False, True), (True, True)))
def test_a_legend_lists_each_series_once(extrapolated):
    table = pd.DataFrame({"x": [0.25, 0.5], "multiplier": [1.5, 2.0], "low": [1.2, 1.7], "high": [1.8, 2.3]})
    _, axes = panels(1, 1)
    for index, name in enumerate(("N = 4k", "N = 8k")):
        series = table.assign(extrapolated=extrapolated)
        question.draw_multipliers(axes[0, 0], series["x"], series, series_style(index), name)
    assert axes[0, 0].get_legend_handles_labels()[1] == ["N = 4k", "N = 8k"]


def test_sizes_are_short_on_axes():
    assert [short_tokens(value) for value in (16, 16384, 4e6, 2.5e9)] == ["16", "16.4k", "4M", "2.5B"]


def test_schedules_stand_in_the_order_of_their_cool_down():
    names = sorted(["wsd-0.2", "cosine", "wsd-0.01", "wsd-0.1/cosine"], key=settings._schedule_order)
    assert names == ["cosine", "wsd-0.01", "wsd-0.1/cosine", "wsd-0.2"]


def test_a_figure_is_laid_out_once_and_drawn_once_for_each_kind_of_file(evidence, monkeypatch):
    drawing = scaling.multiplier_against_size(evidence)
    laid_out, drawn_times, draw = [], [], Figure.draw
    engine = type(drawing.figure.get_layout_engine())
    execute = engine.execute
    monkeypatch.setattr(engine, "execute", lambda self, figure: (laid_out.append(1), execute(self, figure)))
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: (drawn_times.append(1), draw(self, renderer)))
    for kind in ("pdf", "png", "svg"):
        drawing.rendered(kind)
    assert (len(laid_out), len(drawn_times)) == (1, 3)


ODD_NAMES = (r"$\frac{$", "$$", r"\$", "$x^{$", "_hidden", "two\nlines", "n" * 10_000, "\x00\x1b", "a|b", "")


def test_names_of_the_data_are_shown_as_they_are_whatever_is_in_them():
    parts = [
        simulate_runs(
            Truth(gain=1.2 + 0.1 * number),
            target_tokens=(8192, 16384),
            replay_fractions=(0.0, 0.5, 0.75),
            replay_tokens=(8192, 16384),
            epochs=(4, 8),
            seed=number,
            target=name,
            model=name,
            generic=name,
            parameters=1e6 * (number + 1),
            lr_schedule=name if number % 2 else "cosine",
        )
        for number, name in enumerate((*ODD_NAMES, *ODD_NAMES[:2]))
    ]
    parts += [parts[0].assign(lr_schedule=name) for name in ODD_NAMES[:3]]
    runs = pd.concat(parts, ignore_index=True)
    runs[r"$\frac{$ accuracy"] = 0.5
    figures, _ = draw_all(Evidence(analyse(runs, Settings(n_resamples=50))))
    assert {"reference_curve", "learning_rate_schedules", "accuracy_against_replay"} <= {f.name for f in figures}
    for drawing in figures:
        drawing.rendered("svg")
    titles = [axis.get_title() for axis in figures[0].figure.axes]
    assert any(title.startswith(r"\$\frac{\$") for title in titles)


@pytest.mark.parametrize(
    ("name", "shown"),
    (
        ("maths", "maths"),
        (r"$\frac{$", r"\$\frac{\$"),
        ("_x", " _x"),
        ("two\nlines\x00", "two lines"),
        ("n" * 99, "n" * 59 + "…"),
    ),
)
def test_a_name_in_a_figure_is_one_short_line_without_formulas(name, shown):
    assert plain_text(name) == shown
