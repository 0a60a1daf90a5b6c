"""A study laid out as planned runs, and what the plan says of them; no torch, so that a plan answers at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.models.flops import flops_per_token, parameters
from replay_sweeps.study import Study
from replay_sweeps.sweep.ledger import Ledger, Need
from replay_sweeps.sweep.plan import Node, PlannedRun, initial_weights, plan_run, root_settings
from replay_sweeps.sweep.store import Store
from replay_sweeps.sweep.texts import StudyTexts, names_of
from replay_sweeps.training.numerics import known_rates, resolve

OPTIMIZER_STATES = 2  # AdamW's moments, each as large as the weights
BYTES = 4  # of a weight or a moment


@dataclass(frozen=True)
class Layout:
    """The runs of a study as the tree sees them, with the size of each one's vocabulary."""

    runs: tuple[PlannedRun, ...]
    vocab_sizes: Mapping[str, int]  # by run_id


def lay_out(configs: Sequence[RunConfig], texts: StudyTexts | None, rates: Mapping[str, Any] | None) -> Layout:
    """Plan each run. `rates` are the measured rates of this machine, or None where unknown."""
    runs, vocab_sizes = [], {}
    for config in configs:
        target, generic, vocab_size = names_of(config, texts)
        numerics = resolve(config.trainer, dict(rates) if rates else None)
        root = root_settings(config, generic, numerics, initial_weights(config, vocab_size))
        runs.append(plan_run(config, target, generic, root))
        vocab_sizes[runs[-1].run_id] = vocab_size
    return Layout(tuple(runs), vocab_sizes)


def plan_report(study: Study, texts: StudyTexts | None) -> dict[str, Any]:
    """What a command would do and what sharing saves: the fields of DESIGN's `plan=json`."""
    store = Store(study.store)
    layout = lay_out(study.runs, texts, known_rates(study.store))
    ledger = Ledger(layout.runs, store)
    needs = ledger.needs() if texts else []
    unfinished = {id(ledger.paths[i]) for i, need in enumerate(needs) if need}
    nodes = [node for path in ledger.paths for node in path.nodes]
    alone = sum(run.steps for run in layout.runs)
    shared = sum(node.stop - node.start for node in nodes)
    size = {run.run_id: parameters(run.config.model, layout.vocab_sizes[run.run_id]) for run in layout.runs}

    def tokens(node: Node) -> int:
        trainer = layout.runs[node.run].config.trainer
        return (node.stop - node.start) * trainer.batch_rows * trainer.row_length

    def flops(node: Node) -> float:
        run = layout.runs[node.run]
        vocab_size = layout.vocab_sizes[run.run_id]
        return tokens(node) * flops_per_token(run.config.model, vocab_size, run.config.trainer.row_length)

    widths = round_widths(ledger)
    return {
        "study": study.name,
        "runs": len(layout.runs),
        "steps_alone": alone,
        "steps_shared": shared,
        "ratio": alone / shared,
        "rounds": len(widths),
        "round_widths": widths,
        "tokens": sum(tokens(node) for node in nodes),
        "flops": sum(flops(node) for node in nodes),
        "parameters": max(size.values()),
        "state_bytes_peak": state_bytes(ledger, size),
        "done": sum(_done(ledger, unfinished)) if texts else 0,
        "steps_left": sum(need.stop - need.start for need in needs if need) if texts else shared,
        "altered": list(study.altered),
        "warnings": list(_warnings(study, texts)),
        "store": str(study.store),
        "output": str(study.output),
    }


def _done(ledger: Ledger, unfinished: set[int]) -> list[int]:
    """For each path the number of its runs that miss nothing."""
    return [0 if id(path) in unfinished else sum(len(node.runs) for node in path.nodes) for path in ledger.paths]


def round_widths(ledger: Ledger) -> list[int]:
    """How many paths can be trained at once, round by round: those whose parents' rounds are over."""
    depth: list[int] = []
    for parent in ledger.parents:  # parents come before children
        depth.append(0 if parent is None else depth[parent] + 1)
    return [depth.count(level) for level in range(max(depth) + 1)]


def state_bytes(ledger: Ledger, size: Mapping[str, int]) -> int:
    """Bytes of all states that the sweep keeps: weights at the ends, weights and optimizer where runs part."""
    total = 0
    for index, path in enumerate(ledger.paths):
        saved = ledger.save_at(index, Need(path.start, path.stop, True, frozenset()))
        full = sum(saved.values())
        total += BYTES * size[path.run.run_id] * (len(saved) + OPTIMIZER_STATES * full)
    return total


def _warnings(study: Study, texts: StudyTexts | None) -> Any:
    if texts is None:
        yield (
            "the text of this study is not tokenised yet: whether there is enough of it, what is done already, "
            "and the exact size of the vocabulary could not be checked"
        )
    baselines: dict[Any, set[Any]] = {}
    for run in study.runs:
        if run.schedule.replay_fraction == 0:
            size = run.schedule.target_tokens or run.schedule.target_fraction
            nuisance = (
                run.schedule.target_epochs,
                run.schedule.stage1,
                run.schedule.stage2,
                run.optimizer.weight_decay,
            )
            baselines.setdefault((run.target.name, run.model.name, size), set()).add(nuisance)
    if len(study.runs) > 1 and not baselines:
        yield "the grid has no run at replay_fraction 0: there is no baseline to compare with"
    if len(study.runs) > 1 and any(len(tried) == 1 for tried in baselines.values()):
        yield (
            "untuned baseline: some target size has a single setting at replay_fraction 0; sweep "
            "schedule.target_epochs (or the learning rate) so that the multiplier is against the best of several"
        )


def plan_text(report: Mapping[str, Any]) -> str:
    """The plan for a reader."""
    lines = [
        f"study {report['study']}: {report['runs']} runs, {report['done']} of them done",
        f"steps: {report['steps_alone']:,} alone, {report['steps_shared']:,} shared (ratio {report['ratio']:.2f}), "
        f"{report['steps_left']:,} left to train",
        f"work: {report['tokens']:,} tokens, {report['flops']:.3g} FLOPs, {report['parameters']:,} parameters",
        f"rounds: {report['rounds']}, of {', '.join(map(str, report['round_widths']))} paths",
        f"states: {report['state_bytes_peak'] / 1e6:,.0f} MB in {report['store']}",
        f"output: {report['output']}",
    ]
    lines += [f"altered: {item['setting']}: {item['from']} -> {item['to']}" for item in report["altered"]]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join(lines)
