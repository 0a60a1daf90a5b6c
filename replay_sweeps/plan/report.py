"""The plan of a study for its reader: what would be done, what sharing saves, how long and how large; no torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from replay_sweeps.data.study_texts import StudyTexts
from replay_sweeps.models.flops import parameters
from replay_sweeps.plan.drawing import splits, tree_lines
from replay_sweeps.plan.memory import hours, memory_of, too_large, trained_bytes
from replay_sweeps.plan.time_and_disk import seconds_left, state_bytes_peak
from replay_sweeps.store.states import Store
from replay_sweeps.store.status import Missing, MissingWork, StudyStatus
from replay_sweeps.store.study_records import read_study_record, renamed
from replay_sweeps.study.study import Study
from replay_sweeps.tree.paths import StudyTree
from replay_sweeps.tree.study_plan import StudyPlan
from replay_sweeps.tree.target_size import estimates

MOST_RUNS_DRAWN = 48  # in the terminal


def plan_report(plan: StudyPlan) -> dict[str, Any]:
    """What a command would do and what sharing saves: the fields of `plan=json` (see docs/architecture.md)."""
    study, tree = plan.study, plan.tree
    status, first = StudyStatus(tree, Store(study.store)), study.runs[0]
    missing: Missing = status.missing() if plan.texts else [MissingWork(p.start, p.stop, True) for p in tree.paths]
    done, left = status.progress(missing)
    widths = round_widths(tree)
    size = {run.run_id: trained_bytes(run.config, run.vocab_size) for run in plan.runs}
    work, sizes = _work(plan), [run.vocab_size for run in plan.runs]
    memory, largest = memory_of(study.runs, sizes, plan.rates, study.elsewhere)
    large = too_large(memory, largest)
    before = read_study_record(study.store, study.name, study.output)
    return {
        "study": study.name,
        "runs": len(plan.runs),
        **work,
        "rounds": len(widths),
        "round_widths": widths,
        "parameters": max(parameters(run.config.model, run.vocab_size) for run in plan.runs),
        "memory": memory,
        "hours": hours(work["flops"], first.trainer, plan.rates),
        "utilisation": first.trainer.utilisation,
        "state_bytes_peak": state_bytes_peak(tree, size, first.keep_states),
        "done": done if plan.texts else 0,
        "steps_left": left,
        "workers": study.workers,
        "seconds_left": seconds_left(status, missing, study.workers) if plan.texts else None,
        "budget": study.budget,
        "splits": splits(tree, study.axes),
        "renamed": renamed(plan, before) if plan.texts else [],
        "altered": list(study.altered),
        "warnings": [*_warnings(study, plan.texts), *([large] if large else [])],
        "store": str(study.store),
        "output": str(study.output),
    }


def _work(plan: StudyPlan) -> dict[str, Any]:
    """Steps, tokens and operations of all paths."""
    tokens, flops, shared = 0, 0.0, 0
    per_step: dict[str, tuple[int, float]] = {}  # tokens and operations of a step, by root
    for path in plan.tree.paths:
        for node in path.nodes:
            run = plan.runs[node.run]
            if run.root not in per_step:
                per_step[run.root] = run.tokens_per_step, run.flops_per_step
            steps = node.stop - node.start
            shared += steps
            tokens += steps * per_step[run.root][0]
            flops += steps * per_step[run.root][1]
    alone = sum(run.steps for run in plan.runs)
    return {
        "steps_alone": alone,
        "steps_shared": shared,
        "ratio": alone / shared,
        "tokens": tokens,
        "flops": flops,
    }


def round_widths(tree: StudyTree) -> list[int]:
    """How many paths can be trained at once, round by round: those whose parents' rounds are over."""
    depth: list[int] = []
    for parent in tree.parents:  # parents come before children
        depth.append(0 if parent is None else depth[parent] + 1)
    widths = [0] * (max(depth) + 1)
    for level in depth:
        widths[level] += 1
    return widths


def _warnings(study: Study, texts: StudyTexts | None) -> Iterator[str]:
    if texts is None:
        own = {run.generic: None for run in study.runs if run.generic.kind == "self_generated"}
        for generic in own:
            documents = generic.max_documents or 0
            yield (
                f"{documents:,} documents are sampled from the model {generic.path} first: of at most "
                f"{generic.document_tokens:,} tokens each, {documents * generic.document_tokens:,} in all"
            )
        yield (
            "the text of this study is not tokenised yet: whether there is enough of it, what is done already, "
            "and the exact size of the vocabulary could not be checked"
        )
        yield from estimates(study.runs)
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


def plan_text(report: Mapping[str, Any], drawing: Sequence[str] = ()) -> str:
    """The plan for a reader."""
    lines = [
        f"study {report['study']}: {report['runs']} runs, {report['done']} of them done",
        f"steps: {report['steps_alone']:,} alone, {report['steps_shared']:,} shared (ratio {report['ratio']:.2f}), "
        f"{report['steps_left']:,} left to train",
        f"work: {report['tokens']:,} tokens, {report['flops']:.3g} FLOPs, {report['parameters']:,} parameters",
        _shown_memory(report["memory"]),
        f"hours: {_shown_hours(report)}",
        f"rounds: {report['rounds']}, of {_shown_widths(report['round_widths'])} paths",
        f"states: {report['state_bytes_peak'] / 1e6:,.0f} MB at most in {report['store']}",
        f"output: {report['output']}",
    ]
    if report["seconds_left"] is not None:
        lines.append(
            f"time: about {_shown_time(report['seconds_left'])} with {report['workers']} workers, at the rate that was "
            "measured in this store"
        )
    lines += (report["budget"] or {}).get("says", [])
    lines += [
        f"split: {item['setting']} parts runs from step {item['step']:,} on ({item['share']:.0%} of the way)"
        for item in report["splits"]
    ]
    lines += [f"altered: {_shown_change(item)}" for item in report["altered"]]
    lines += [
        f"changed: {_shown_change(item)} since the study last ran: {item['runs']} of its runs have new keys"
        for item in report["renamed"]
    ]
    lines += [f"warning: {warning}" for warning in report["warnings"]]
    return "\n".join([*lines, *drawing])


def _shown_memory(memory: Mapping[str, Any]) -> str:
    parts = ", ".join(
        f"{memory[part] / 1e9:.3g} {part}" for part in ("weights", "gradients", "optimizer", "activations")
    )
    trained = (
        "" if memory["trained_parameters"] == memory["parameters"] else f", {memory['trained_parameters']:,} trained"
    )
    place = f"{memory['device']} ({memory['available'] / 1e9:.3g} GB)" if memory["available"] else memory["device"]
    fits = {True: "which fits into", False: "which does not fit into", None: "of unknown size is"}[memory["fits"]]
    devices = f"each of {memory['devices']} devices ({memory['strategy']})" if memory["devices"] > 1 else "a device"
    return f"memory: about {memory['total'] / 1e9:.3g} GB on {devices} ({parts}{trained}), {fits} {place}"


def _shown_hours(report: Mapping[str, Any]) -> str:
    if report["hours"] is None:
        return "unknown before the rate of this machine is measured; set trainer.peak_tflops"
    share = f"{report['utilisation']:.0%} of the peak rate (trainer.utilisation)"
    return f"{report['hours']:.3g} for all of it with one worker, at {share}"


def _shown_change(item: Mapping[str, Any]) -> str:
    before, after = ("null" if item[end] is None else item[end] for end in ("from", "to"))
    return f"{item['setting']}: {before} -> {after}"


def _shown_widths(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths[:12])) + (" ..." if len(widths) > 12 else "")


def _shown_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def small_tree_lines(tree: StudyTree, axes: Sequence[str]) -> list[str]:
    """The tree as lines for a terminal, where it is small enough."""
    return ["", *tree_lines(tree, axes)] if len(tree.runs) <= MOST_RUNS_DRAWN else []
