"""The prefix tree of a study as its reader sees it: which settings part the runs; drawn in letters and as SVG."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from replay_sweeps.config import RunConfig
from replay_sweeps.tree.paths import StudyTree, TreePath

MOST_VALUES = 64  # of a setting that are told apart below a node
Values = list[set[Any] | None]  # of each axis; None: too many to tell apart


def axis_value(run: RunConfig, axis: str) -> Any:
    """The value of a swept setting, or the name of a swept group's choice."""
    value: Any = run
    for part in axis.split("."):
        value = getattr(value, part, None)
    return getattr(value, "name", value)


def splits(tree: StudyTree, axes: Sequence[str]) -> list[dict[str, Any]]:
    """For each swept setting the first step at which it parts runs, and how far that is along the way; ascending."""
    first: dict[str, tuple[int, float]] = {}
    below: dict[int, Values] = {}
    nodes = [node for path in tree.paths for node in path.nodes]
    for node in sorted(nodes, key=lambda node: -node.start):  # children before parents
        groups = [below.pop(id(child)) for child in node.children]
        own: Values = [{axis_value(tree.runs[run].config, axis) for run in node.runs} for axis in axes]
        _note(first, node.stop, node.stop / tree.runs[node.run].steps, groups, axes)
        below[id(node)] = _union([*groups, own] if node.runs or not groups else groups, len(axes))
    _note(first, 0, 0.0, list(below.values()), axes)
    found = [{"setting": axis, "step": step, "share": share} for axis, (step, share) in first.items()]
    return sorted(found, key=lambda item: (item["step"], item["setting"]))


def _union(groups: Sequence[Values], count: int) -> Values:
    joined: Values = []
    for axis in range(count):
        parts = [group[axis] for group in groups]
        whole = None if None in parts else max(parts, key=len)  # type: ignore[arg-type]
        if whole is not None:
            for part in parts:
                whole |= part or set()
        joined.append(whole if whole is None or len(whole) <= MOST_VALUES else None)
    return joined


def _note(
    first: dict[str, tuple[int, float]], step: int, share: float, groups: Sequence[Values], axes: Sequence[str]
) -> None:
    """A setting parts two groups of runs when they have no value of it in common."""
    pairs = [*pairwise(groups), *((groups[0], group) for group in groups[2:])]
    for axis, name in enumerate(axes):
        parted = any(a[axis] is not None and b[axis] is not None and not a[axis] & b[axis] for a, b in pairs)  # type: ignore[operator]
        if parted and (name not in first or step < first[name][0]):
            first[name] = (step, share)


def _label(path: TreePath, tree: StudyTree, axes: Sequence[str]) -> str:
    """What tells the run at the end of a path from the others."""
    run = tree.runs[path.nodes[-1].runs[0]].config
    return " ".join(f"{axis.rpartition('.')[2]}={axis_value(run, axis)}" for axis in axes)


def tree_lines(tree: StudyTree, axes: Sequence[str]) -> Iterator[str]:
    """One line for each path: the steps that are its own, below the path that it branches off from."""
    yield "tree (steps of its own, then the run at the end of each path):"
    heads = [index for index, parent in enumerate(tree.parents) if parent is None]
    stack = [(index, "", "") for index in reversed(heads)]
    while stack:
        index, lead, below = stack.pop()
        path = tree.paths[index]
        yield f"{lead}{path.start:,}-{path.stop:,} {_label(path, tree, axes)}".rstrip()
        children = _children(tree, index)
        for number, child in reversed(list(enumerate(children))):
            last = number == len(children) - 1
            stack.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


def _children(tree: StudyTree, index: int) -> list[int]:
    return [child for _, children in sorted(tree.branches[index].items()) for child in children]


def tree_svg(tree: StudyTree, axes: Sequence[str]) -> str:
    """A line for each path over the steps that are its own, from the path that it branches off from."""
    row, width, letters = 16, 640, 7
    rows: dict[int, int] = {}
    stack = [index for index in reversed(range(len(tree.paths))) if tree.parents[index] is None]
    while stack:
        index = stack.pop()
        rows[index] = len(rows)
        stack.extend(_children(tree, index))  # the last branch is drawn next to its trunk: no line crosses
    last = max(path.stop for path in tree.paths)
    labels = [_label(path, tree, axes) for path in tree.paths]
    full, height = width + 60 + letters * max(map(len, labels)), row * (len(rows) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{full}" height="{height}" font-family="sans-serif" '
        f'font-size="11"><rect width="{full}" height="{height}" fill="white"/>'
    ]
    for index, path in enumerate(tree.paths):
        x, end, y = 20 + width * path.start / last, 20 + width * path.stop / last, row * (rows[index] + 1)
        parent = tree.parents[index]
        if parent is not None:
            parts.append(f'<path d="M{x:.1f} {row * (rows[parent] + 1)}V{y}" stroke="#999" fill="none"/>')
        parts.append(f'<path d="M{x:.1f} {y}H{end:.1f}" stroke="#0072b2" stroke-width="2" fill="none"/>')
        parts.append(f'<text x="{end + 6:.1f}" y="{y + 4}">{escape(labels[index])}</text>')
    parts.append(f'<text x="20" y="{row * (len(rows) + 1) + 8}">0 to {last:,} steps</text></svg>')
    return "\n".join(parts)
