"""The plan of a study, worked out once: its planned runs and their tree. No torch, so that a plan answers at once."""

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import plain_values
from replay_sweeps.data.prepared_text import TextNames
from replay_sweeps.data.study_texts import StudyTexts, names_of
from replay_sweeps.files import fingerprint
from replay_sweeps.models.numerics import resolve
from replay_sweeps.models.pretrained import weights_fingerprint
from replay_sweeps.study.study import Study
from replay_sweeps.tree.paths import StudyTree
from replay_sweeps.tree.planned_run import PlannedRun, initial_weights, plan_run, root_settings
from replay_sweeps.tree.target_size import with_target_tokens

Rates = Mapping[str, Any] | None  # FLOP/s of this machine by precision, as `numerics.known_rates` gives them


@dataclass(frozen=True)
class StudyPlan:
    """A study with everything that follows from it. The plan's report, the command and each worker take it alike."""

    study: Study
    texts: StudyTexts | None  # None: not prepared yet, stand-ins are used for its names
    rates: Rates
    runs: tuple[PlannedRun, ...]  # in the order of `study.runs`

    @functools.cached_property
    def tree(self) -> StudyTree:
        """The prefix tree of the runs."""
        return StudyTree(self.runs)

    def only(self, run_ids: Collection[str], **changes: Any) -> "StudyPlan":
        """The plan of some of the runs; `changes` are fields of the study."""
        runs = tuple(run for run in self.runs if run.run_id in run_ids)
        return replace(self, study=replace(self.study, runs=tuple(run.config for run in runs), **changes), runs=runs)

    def made_of(self) -> dict[str, str]:
        """What shapes states besides settings: the texts' fingerprints and the numerics of the machine."""
        found: dict[str, str] = {}
        for run in self.runs:
            found |= {f"the text of target {run.config.target.name}": run.target_store}
            found |= {f"the text of generic {run.config.generic.name}": run.generic_store}
            found |= {f"the machine's {name}": str(value) for name, value in run.numerics.items()}
        return found

    def text_folders(self) -> frozenset[str]:
        """The folders of the texts, below that of all text."""
        return self.texts.folders() if self.texts else frozenset()

    def models(self) -> dict[str, dict[str, Any]]:
        """By tree: the model that states are read into, and its tokenizer, as JSON values; what `export` needs."""
        found: dict[str, dict[str, Any]] = {}
        for run in self.runs if self.texts else ():
            if run.tree not in found:
                found[run.tree] = self._model_of(run)
        return found

    def _model_of(self, run: PlannedRun) -> dict[str, Any]:
        assert self.texts
        config, tokenizer = run.config, self.texts.tokenizer(run.config)
        pretrained = {"pretrained": weights_fingerprint(config.model)} if config.model.path is not None else {}
        return {
            **pretrained,
            "model": plain_values(asdict(config.model)),
            "vocab_size": run.vocab_size,
            "weights": config.trainer.weights,
            "tokenizer": tokenizer.path.name,
            "end_of_text": tokenizer.end_of_text,
        }


def plan_study(study: Study, texts: StudyTexts | None, rates: Rates) -> StudyPlan:
    """Fill in target sizes that are given as a share, and plan each run. `rates`: None where nothing was measured.

    Raises UserError where a run with such a size cannot be.
    """
    study = replace(study, runs=with_target_tokens(study.runs, texts))
    return StudyPlan(study, texts, rates, plan_runs(study.runs, texts, rates))


def plan_runs(configs: Iterable[RunConfig], texts: StudyTexts | None, rates: Rates) -> tuple[PlannedRun, ...]:
    """Plan runs whose target sizes are known."""
    runs = []
    names: dict[Any, tuple[TextNames, TextNames, int]] = {}
    roots: dict[Any, tuple[str, dict[str, Any]]] = {}
    for config in configs:
        sizes = (config.evaluation.tokens, config.trainer.row_length)
        text = (config.target, config.generic, config.model.tokenizer, *sizes)
        if text not in names:
            names[text] = names_of(config, texts)
        target, generic, vocab_size = names[text]
        optimizer = replace(config.optimizer, weight_decay=0)
        shape = (config.model, config.trainer, optimizer, config.generic, vocab_size, config.packed)
        if shape not in roots:
            numerics = resolve(config.trainer, config.model, rates)
            root = root_settings(config, generic, numerics, initial_weights(config, vocab_size))
            roots[shape] = fingerprint(root), numerics
        runs.append(plan_run(config, target, generic, *roots[shape], vocab_size))
    return tuple(runs)
