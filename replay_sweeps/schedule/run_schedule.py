"""The schedules of a checked configuration: its rows, and its learning rates."""

from fractions import Fraction

from replay_sweeps.config import RateConfig, RunConfig, ScheduleConfig
from replay_sweeps.schedule.data_schedule import DataSchedule, stage2_alone, two_stages
from replay_sweeps.schedule.learning_rate import LRSchedule, Rate


def target_tokens(schedule: ScheduleConfig) -> Fraction:
    """N in tokens; not a whole number where the fraction of T is not."""
    if schedule.target_tokens is not None:
        return Fraction(schedule.target_tokens)
    assert schedule.target_fraction is not None and schedule.total_tokens is not None
    return schedule.target_fraction * schedule.total_tokens


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


def lr_pieces(run: RunConfig, data: DataSchedule) -> tuple[list[tuple[int, Rate]], int | None]:
    """The learning-rate pieces of a run, and the step at which its optimizer starts afresh."""
    mode, one, two = run.schedule.mode, run.schedule.stage1, run.schedule.stage2
    if mode == "mid_train":
        assert one
        return _lr_schedule(one, data.steps, data.steps).pieces(0, data.steps), None
    if mode == "from_pretrained":
        assert two
        return _lr_schedule(two, data.steps, data.steps).pieces(0, data.steps), None
    assert one and two
    begin = data.stage2_step
    stage1 = _lr_schedule(one, data.steps, begin).pieces(0, begin) if begin else []
    stage2 = (
        _lr_schedule(two, data.steps - begin, data.steps - begin).pieces(begin, data.steps)
        if begin < data.steps
        else []
    )
    return stage1 + stage2, begin if 0 < begin < data.steps else None


def _lr_schedule(rate: RateConfig, warmup_base: int, steps: int) -> LRSchedule:
    warmup = rate.warmup_steps
    if warmup is None:
        warmup = round(Fraction(str(rate.warmup_fraction)) * warmup_base)
    cooldown = round(Fraction(str(rate.cooldown_fraction)) * steps)
    return LRSchedule(rate.law, rate.peak, rate.peak * rate.final_fraction, warmup, cooldown, rate.cooldown_shape)
