"""The prefix tree of a grid: runs that do the same for their first steps share those steps."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from replay_sweeps.config import RateConfig, RunConfig
from replay_sweeps.files import fingerprint
from replay_sweeps.models.pretrained import lora_alpha, lora_names, weights_fingerprint
from replay_sweeps.schedule.behaviour import Behaviour, TargetOrder, behaviour, first_difference, key
from replay_sweeps.schedule.data_schedule import DataSchedule, stage2_alone, two_stages
from replay_sweeps.schedule.learning_rate import Rate, RateLaw
from replay_sweeps.study.checks import target_tokens

SEMANTICS = 2  # of training: raised when the same behaviour would end in other weights


@dataclass(frozen=True)
class TextNames:
    """The content fingerprints of one tokenised text."""

    train: str
    selection: str
    report: str


@dataclass(frozen=True)
class Observation:
    """A validation loss of the state after `step` optimizer steps, on one validation store."""

    step: int
    metric: str  # target_loss, target_loss_selection, generic_loss
    store: str


@dataclass(frozen=True)
class PlannedRun:
    """A run as the tree sees it."""

    run_id: str
    config: RunConfig
    schedule: DataSchedule
    behaviour: Behaviour
    root: str
    generic_store: str  # fingerprint of the generic text's training store
    observations: tuple[Observation, ...]

    def key(self, step: int) -> str:
        """The name of this run's state after `step` optimizer steps."""
        return key(self.root, self.behaviour, step)

    @property
    def steps(self) -> int:
        return self.behaviour.steps


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


def data_schedule(run: RunConfig) -> DataSchedule:
    """N, E, T, rho and alpha of a checked configuration, in rows."""
    schedule, row = run.schedule, run.trainer.row_length
    rows, batch = int(target_tokens(schedule)) // row, run.trainer.batch_rows
    if schedule.mode == "from_pretrained":
        return stage2_alone(batch, rows, schedule.target_epochs, schedule.replay_fraction)
    assert schedule.total_tokens is not None
    return two_stages(
        schedule.total_tokens // row,
        batch,
        rows,
        schedule.target_epochs,
        schedule.replay_fraction,
        schedule.stage2_allocation,
    )


def rates(run: RunConfig, data: DataSchedule) -> tuple[list[tuple[int, Rate]], int | None]:
    """The learning-rate pieces of a run, and the step at which its optimizer starts afresh."""
    mode, one, two = run.schedule.mode, run.schedule.stage1, run.schedule.stage2
    if mode == "mid_train":
        assert one
        return _law(one, data.steps, data.steps).pieces(0, data.steps), None
    if mode == "from_pretrained":
        assert two
        return _law(two, data.steps, data.steps).pieces(0, data.steps), None
    assert one and two
    begin = data.stage2_step
    stage1 = _law(one, data.steps, begin).pieces(0, begin) if begin else []
    stage2 = _law(two, data.steps - begin, data.steps - begin).pieces(begin, data.steps) if begin < data.steps else []
    return stage1 + stage2, begin if 0 < begin < data.steps else None


def _law(rate: RateConfig, warmup_base: int, steps: int) -> RateLaw:
    warmup = rate.warmup_steps
    if warmup is None:
        warmup = round(Fraction(str(rate.warmup_fraction)) * warmup_base)
    cooldown = round(Fraction(str(rate.cooldown_fraction)) * steps)
    return RateLaw(rate.law, rate.peak, rate.peak * rate.final_fraction, warmup, cooldown, rate.cooldown_shape)


def is_packed(run: RunConfig) -> bool:
    """Whether the run's rows hold examples that are kept apart; plain rows are then computed in the same way."""
    return "chat" in (run.target.format, run.generic.format)


def root_settings(run: RunConfig, text: TextNames, numerics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """What shapes a state besides the behaviour: the root of its tree. `weights` names the initial weights.

    Every value is written by name, so that a dataclass of the schema may grow a field and no state is renamed.
    """
    packed = {"packed": True} if is_packed(run) else {}
    return {
        **packed,
        "weights": weights,
        "optimizer": {
            "beta1": run.optimizer.beta1,
            "beta2": run.optimizer.beta2,
            "epsilon": run.optimizer.epsilon,
            "gradient_clip": run.optimizer.gradient_clip,
        },
        "numerics": numerics,
        "batch_rows": run.trainer.batch_rows,
        "micro_batch_rows": run.trainer.micro_batch_rows or run.trainer.batch_rows,
        "row_length": run.trainer.row_length,
        "generic": text.train,
        "generic_order_seed": run.generic.order_seed,
        "semantics": SEMANTICS,
    }


def initial_weights(run: RunConfig, vocab_size: int) -> dict[str, Any]:
    """The name of a model's initial weights: its shape and seed, or the fingerprint of a pretrained one's."""
    model = run.model
    if model.path is None:
        return {
            "hidden_size": model.hidden_size,
            "layers": model.layers,
            "heads": model.heads,
            "key_value_heads": model.key_value_heads,
            "mlp_size": model.mlp_size,
            "max_positions": model.max_positions,
            "rope_theta": model.rope_theta,
            "tie_embeddings": model.tie_embeddings,
            "init_seed": model.init_seed,
            "vocab_size": vocab_size,
        }
    named: dict[str, Any] = {"pretrained": weights_fingerprint(model)}
    if model.lora_rank is not None:
        targets = lora_names(model)
        named |= {"lora_rank": model.lora_rank, "lora_alpha": lora_alpha(model), "init_seed": model.init_seed}
        named["lora_targets"] = "all-linear" if targets is None else sorted(targets)
    return named


def plan_run(run: RunConfig, target: TextNames, generic: TextNames, root: str) -> PlannedRun:
    """Lay out one run below the root with this fingerprint: schedule, behaviour, the states at which it is observed."""
    data = data_schedule(run)
    pieces, reset = rates(run, data)
    order = TargetOrder(target.train, run.schedule.subset_seed, run.schedule.order_seed, data.target_rows)
    planned = behaviour(data, pieces, run.optimizer.weight_decay, order, reset)
    whole = {
        "target_loss": target.report,
        "target_loss_selection": target.selection,
        "generic_loss": generic.report,
    }
    observed = [Observation(data.steps, metric, store) for metric, store in whole.items()]
    begins = data.stage2_step
    steps = {*run.evaluation.at_steps}
    if begins < data.steps:
        steps |= {begins, min(begins + run.evaluation.after_stage2_steps, data.steps)}
    observed += [
        Observation(step, metric, whole[metric])
        for step in sorted(steps)
        if step < data.steps
        for metric in ("target_loss", "generic_loss")
    ]
    schedule = run.schedule
    cell: list[Any] = [schedule.mode, data.target_rows, schedule.target_epochs]
    cell += [str(schedule.replay_fraction), str(schedule.stage2_allocation)]
    names = [run.model.name, run.target.name, run.generic.name]
    identity = fingerprint([key(root, planned, data.steps), cell, names])
    return PlannedRun(identity[:12], run, data, planned, root, generic.train, tuple(observed))


def plain_values(settings: Any) -> Any:
    """Settings as JSON values: fractions as texts."""
    if isinstance(settings, dict):
        return {name: plain_values(value) for name, value in settings.items()}
    return str(settings) if isinstance(settings, Fraction) else settings


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
