"""The figures of a report, in its order; each is a function of the evidence, or says what the table lacks for it."""

from analysis.findings.evidence import Evidence, NotEnoughError
from analysis.report.figures import mechanisms, question, scaling, settings
from analysis.report.figures.canvas import Drawing

DRAWERS = (
    question.reference_curve,
    question.loss_against_replay,
    question.multiplier_against_replay,
    scaling.multiplier_against_size,
    scaling.best_replay_against_size,
    scaling.multiplier_against_model,
    settings.data_schedules,
    settings.repetitions,
    settings.weight_decay_against_replay,
    settings.learning_rate_schedules,
    settings.accuracy_against_replay,
    scaling.multiplier_against_distance,
    mechanisms.shock,
    mechanisms.overfitting,
    mechanisms.forgetting,
    mechanisms.training_curves,
)


def draw_all(evidence: Evidence) -> tuple[list[Drawing], list[tuple[str, str]]]:
    """The figures that the table supports, and (name, reason) of those that it does not."""
    drawings, left_out = [], []
    for draw in DRAWERS:
        try:
            drawings.append(draw(evidence))
        except NotEnoughError as reason:
            left_out.append((draw.__name__.replace("_", " "), str(reason)))
    return drawings, left_out
