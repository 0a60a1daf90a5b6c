"""The prefix tree of a grid: runs that do the same for their first steps share those steps."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from replay_sweeps.schedule.behaviour import first_difference
from replay_sweeps.tree.planned_run import PlannedRun


@dataclass
class Node:
    """A stretch [start, stop) of steps that the same runs share; `runs` end at its stop."""

    start: int
    stop: int
    run: int  # any run that passes through it
    parent: "Node | None" = None
    children: list["Node"] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)

    def chain(self) -> Iterator["Node"]:
        """This node and its ancestors, the root last."""
        node: Node | None = self
        while node:
            yield node
            node = node.parent


def prefix_tree(runs: Sequence[PlannedRun]) -> list[Node]:
    """The roots of the prefix trees of the runs.

    Runs are sorted as words over what they do at each step; each then shares its longest prefix with its neighbour,
    and the tree is read off with a stack (as a suffix tree is from sorted suffixes), in time linear in the runs.
    """

    def order(i: int, j: int) -> int:
        a, b = runs[i], runs[j]
        if a.root != b.root:
            return -1 if a.root < b.root else 1
        step = first_difference(a.behaviour, b.behaviour)
        if step >= min(a.steps, b.steps):
            return a.steps - b.steps
        return -1 if repr(a.behaviour.piece_at(step)[2:]) < repr(b.behaviour.piece_at(step)[2:]) else 1

    roots: list[Node] = []
    stack: list[Node] = []
    last: PlannedRun | None = None
    for index in sorted(range(len(runs)), key=functools.cmp_to_key(order)):
        run = runs[index]
        shared = first_difference(last.behaviour, run.behaviour) if last and last.root == run.root else 0
        while stack and stack[-1].start >= shared:
            stack.pop()
        if stack and stack[-1].stop > shared:
            _split(stack[-1], shared)
        if stack and shared == run.steps:
            stack[-1].runs.append(index)
        else:
            leaf = Node(shared, run.steps, index, stack[-1] if stack else None, runs=[index])
            (stack[-1].children if stack else roots).append(leaf)
            stack.append(leaf)
        last = run
    return roots


def _split(node: Node, step: int) -> None:
    """Cut a node in two: it keeps the first part, a new child takes the rest with the children and the run ends."""
    rest = Node(step, node.stop, node.run, node, node.children, node.runs)
    for child in rest.children:
        child.parent = rest
    node.stop, node.children, node.runs = step, [rest], []


def walk(roots: Sequence[Node]) -> Iterator[Node]:
    """All nodes, parents before children."""
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def heavy_paths(roots: Sequence[Node]) -> list[list[Node]]:
    """The tree as paths, each to be trained in one go: a node continues with the child of the longest chain.

    Paths come in an order in which each starts from a state of an earlier one, longest chain first.
    """
    longest: dict[int, int] = {}
    for node in reversed(list(walk(roots))):
        longest[id(node)] = node.stop - node.start + max((longest[id(child)] for child in node.children), default=0)

    def weight(node: Node) -> int:
        return longest[id(node)]

    paths: list[list[Node]] = []
    heads = sorted(roots, key=weight, reverse=True)
    for head in heads:  # grows while it is walked
        path = [head]
        while path[-1].children:
            heavy = max(path[-1].children, key=weight)
            heads.extend(sorted((child for child in path[-1].children if child is not heavy), key=weight, reverse=True))
            path.append(heavy)
        paths.append(path)
    return paths
