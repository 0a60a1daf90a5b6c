"""What all figures share: one style, column width, the same bytes on a rerun, PDF, PNG and SVG."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN_INCHES = 3.25
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_CHARACTERS = 60  # of a name in a figure
_STYLE = Path(__file__).with_name("style.mplstyle")
_NO_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}


@dataclass(frozen=True)
class Drawing:
    """A finished figure: `name` (file stem), `title`, `caption` (a sentence or two), and the figure itself."""

    name: str
    title: str
    caption: str
    figure: "Figure"

    def rendered(self, kind: str) -> bytes:
        """The bytes of the figure as "pdf", "png" or "svg": equal for equal data."""
        buffer = io.BytesIO()
        with _house_style():
            self._lay_out()
            self.figure.savefig(buffer, format=kind, metadata=_NO_DATE[kind])
        return buffer.getvalue()

    def _lay_out(self) -> None:
        """Find the place of everything, once for all kinds of files."""
        engine = self.figure.get_layout_engine()
        if engine is not None:
            engine.execute(self.figure)
            # "none" would leave a stand-in behind, for whose sake matplotlib draws each file twice.
            self.figure.set_layout_engine(None)

    def save(self, folder: Path) -> list[Path]:
        """Write NAME.pdf and NAME.png to `folder`."""
        paths = [folder / f"{self.name}.{kind}" for kind in ("pdf", "png")]
        for path in paths:
            write_atomically(path, self.rendered(path.suffix[1:]))
        return paths


def _house_style() -> Any:
    """The style sheet over matplotlib's defaults, whatever the user's own matplotlibrc says."""
    from matplotlib import style

    return style.context(["default", _STYLE])


def panels(rows: int, columns: int, panel_height: float = 2.2, width: float = COLUMN_INCHES, **options: Any) -> Any:
    """A figure and its axes (rows, columns) in the house style, without a window or a global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _house_style():
        figure = Figure(figsize=(width, panel_height * rows), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


def drawer(draw: Callable[..., Drawing]) -> Callable[..., Drawing]:
    """Decorate a function that draws, so that everything it adds takes the house style."""

    @wraps(draw)
    def styled(*arguments: Any, **options: Any) -> Drawing:
        with _house_style():
            return draw(*arguments, **options)

    return styled


def series_style(index: int) -> dict[str, Any]:
    """Colour and marker of the index-th series: told apart without colour too."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def token_ticks(axis: Any, tokens: Sequence[float]) -> None:
    """A log axis of target tokens with ticks at sizes that were run ("16k"), as many as stay legible."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    axis.set_xscale("log")
    ticks = sorted(set(tokens))
    step = -(-len(ticks) // 6)
    ticks = ticks[::step]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticklabels([short_tokens(value) for value in ticks])


def short_tokens(tokens: float) -> str:
    """A number of tokens for a tick or a legend: 16384 → "16.4k"."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{letter}"
    return f"{tokens:.3g}"


def plain_text(text: object) -> str:
    """A text from the data as figures show it: nothing in it is read as a formula, on one line, not too long.

    Every name, setting and column that a figure shows passes through here.
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    words = words if len(words) <= MOST_CHARACTERS else words[: MOST_CHARACTERS - 1] + "…"
    hidden = " " if words.startswith("_") else ""  # a legend leaves out what begins with an underscore
    return hidden + words.replace("$", r"\$")


def legend_above(axis: Any, title: str = "") -> None:
    """A legend over the plot, where it hides no data, in as many columns as its words allow."""
    labels = axis.get_legend_handles_labels()[1]
    if not labels:
        return
    inches = axis.figure.get_size_inches()[0] / max(1, axis.get_gridspec().ncols)
    columns = max(1, min(4, len(labels), int(15 * inches / (max(map(len, labels)) + 5))))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, title=title or None)


def panel_grid(count: int, panel_height: float) -> tuple[Any, list[Any]]:
    """A figure of `count` equal panels, two to a row where there are several, and the panels in use."""
    columns = 1 if count == 1 else 2
    rows = -(-count // columns)
    figure, axes = panels(
        rows, columns, panel_height, width=COLUMN_INCHES if columns == 1 else 2 * COLUMN_INCHES + 0.25
    )
    for spare in axes.ravel()[count:]:
        spare.set_visible(False)
    return figure, list(axes.ravel()[:count])
