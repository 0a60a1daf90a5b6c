"""A study within its budget: measured once, decided once, and kept to by every command that goes on with it."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from replay_sweeps.config_builder import plain_values
from replay_sweeps.errors import UserError
from replay_sweeps.files import fingerprint, recalled, write_record
from replay_sweeps.plan.budget import Costs, TooLittle, choose, in_words, left_out_in_words, short_time, would_fit
from replay_sweeps.plan.time_and_disk import measured_rate
from replay_sweeps.plan.timing import STEPS, Timing, estimated, measured_run, read_timing, scaled, write_timing
from replay_sweeps.store.states import Store
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.study.checks import budget_seconds
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.study_plan import StudyPlan

FILE = "budget.json"
Measure = Callable[[PlannedRun], Timing]


def within_budget(plan: StudyPlan, measure: Measure | None) -> StudyPlan:
    """The plan with those runs that fit its budget; `study.budget` says what was decided and from which measurement.

    A decision that was recorded for the same grid, settings and budget stands, on other machines too. Without `measure`
    (a plan) nothing is measured and nothing written: what the store knows, or the rate of the device, must do, else the
    whole grid stays. Raises UserError where not even the smallest comparison fits.
    """
    study, text = plan.study, plan.study.runs[0].budget
    if text is None:
        return plan
    name = _decision_name(plan)
    decision = _recorded_decision(study.output / FILE, name)
    if decision is None:
        known = _timing(plan, measure)
        if known is None:
            waiting = f"budget {text}: what fits is decided when a few steps have been measured"
            return replace(plan, study=replace(study, budget={"budget": text, "says": [waiting]}))
        timing, source = known
        decision = {"name": name, **_decide(plan, timing, source, budget_seconds(text) or 0.0)}
        if measure is not None:
            write_record(study.output / FILE, decision)
    budget = {key: decision[key] for key in decision if key not in ("name", "kept")}
    return plan.only(decision["kept"], budget=budget)


def _decision_name(plan: StudyPlan) -> str:
    """What a decision is for: a budget, workers, and runs with all that makes them fast or slow; not the machine."""
    study, first = plan.study, plan.study.runs[0]
    workers = 1 if study.in_process else first.workers
    runs = [[run.run_id, asdict(run.config.trainer), asdict(run.config.evaluation)] for run in plan.runs]
    return fingerprint([first.budget, study.in_process, workers, plain_values(runs)])


def _recorded_decision(file: Path, name: str) -> dict[str, Any] | None:
    record = recalled(file, "what was decided of the budget is damaged and is decided again")
    if record is None or record.get("name") != name:
        return None
    lists = [record.get(part) for part in ("kept", "says", "left_out")]
    is_whole = all(isinstance(items, list) and all(isinstance(item, str) for item in items) for items in lists)
    return record if is_whole else None


def _timing(plan: StudyPlan, measure: Measure | None) -> tuple[Timing, str] | None:
    """What a worker's steps take, and how that is known."""
    run, study = measured_run(plan.runs), plan.study
    known = read_timing(study.store, run, study.workers)
    if known is None and measure is not None:
        known = measure(run)
        write_timing(study.store, run, study.workers, known)
    if known is not None:
        return known, f"measured over {STEPS} steps on this machine"
    guess = estimated(run, measured_rate(Store(study.store), run.tree), plan.rates)
    return (guess[0], f"estimated from {guess[1]}; it is measured before training") if guess else None


def _decide(plan: StudyPlan, timing: Timing, source: str, budget: float) -> dict[str, Any]:
    study, runs = plan.study, plan.runs
    first, workers = study.runs[0], study.workers
    grids = [study.grid_of(run.config) for run in runs]
    try:
        choice = choose(runs, _costs(plan, timing), budget, workers, _done(plan), grids)
    except TooLittle as too_little:
        pair = " and ".join(in_words(study.runs[index], study.axes) for index in too_little.runs)
        raise UserError(
            f"budget={first.budget} (command line): is too little for the least that answers the question ({pair}), "
            f"{short_time(too_little.steps + too_little.rest)} of work at {timing.step:.3g} s a step ({source}); "
            f"would fit: {would_fit(too_little, budget, workers, first.model.lora_rank is not None)}"
        ) from None
    kept, left = ([study.runs[index] for index in indices] for indices in (choice.kept, choice.left_out))
    groups = left_out_in_words(kept, left, study.axes)
    tokens = first.evaluation.tokens
    says = [
        f"budget {first.budget}: a step takes {timing.step:.3g} s, a validation of {tokens:,} tokens "
        f"{tokens * timing.validation_token:.3g} s, beginning and saving a run {timing.path:.3g} s ({source})",
        f"budget {first.budget}: {len(kept)} of {len(runs)} runs fit, about {short_time(choice.seconds / workers)}"
        + (f"; left out: {', '.join(groups)}" if groups else ""),
    ]
    return {
        "budget": first.budget,
        "kept": [runs[index].run_id for index in choice.kept],
        "seconds": choice.seconds,
        "timing": asdict(timing),
        "source": source,
        "left_out": groups,
        "says": says,
    }


def _costs(plan: StudyPlan, timing: Timing) -> Costs:
    measured = measured_run(plan.runs)
    roots = {run.root: scaled(timing, measured, run) for run in plan.runs}
    stores = plan.texts.stores() if plan.texts else {}
    observed = {item.store: run for run in plan.runs for item in run.observations}
    return Costs(
        {root: value.step for root, value in roots.items()},
        {root: value.validation_token for root, value in roots.items()},
        {root: value.path for root, value in roots.items()},
        {s: stores[s].tokens if s in stores else run.config.evaluation.tokens for s, run in observed.items()},
    )


def _done(plan: StudyPlan) -> set[int]:
    """The runs of which nothing is missing in the store."""
    if plan.texts is None:
        return set()
    status = StudyStatus(plan.tree, Store(plan.study.store))
    return status.done(status.missing())
