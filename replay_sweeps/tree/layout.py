"""A study laid out as planned runs; no torch, so that a plan answers at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import plain_values
from replay_sweeps.data.prepared_text import TextNames
from replay_sweeps.data.study_texts import StudyTexts, names_of
from replay_sweeps.files import fingerprint
from replay_sweeps.models.numerics import resolve
from replay_sweeps.models.pretrained import weights_fingerprint
from replay_sweeps.tree.planned_run import PlannedRun, initial_weights, plan_run, root_settings


@dataclass(frozen=True)
class Layout:
    """The runs of a study as the tree sees them, with the size of each one's vocabulary."""

    runs: tuple[PlannedRun, ...]
    vocab_sizes: Mapping[str, int]  # by run_id
    made_of: Mapping[str, str]  # what shapes states besides settings: the texts' fingerprints, numerics
    texts: frozenset[str]  # folders of the texts, below that of all text
    models: Mapping[str, Mapping[str, Any]]  # by tree: what its states are read into, as `sweep.export` needs it


def lay_out(configs: Sequence[RunConfig], texts: StudyTexts | None, rates: Mapping[str, Any] | None) -> Layout:
    """Plan each run. `rates` are the measured rates of this machine, or None where unknown."""
    runs, vocab_sizes = [], {}
    made_of: dict[str, str] = {}
    models: dict[str, Mapping[str, Any]] = {}
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
            if texts is not None:
                models[roots[shape][0][:16]] = read_into(config, vocab_size, texts)
        root_name, numerics = roots[shape]
        runs.append(plan_run(config, target, generic, root_name))
        vocab_sizes[runs[-1].run_id] = vocab_size
        made_of |= {f"the text of target {config.target.name}": target.train}
        made_of |= {f"the text of generic {config.generic.name}": generic.train}
        made_of |= {f"the machine's {name}": str(value) for name, value in numerics.items()}
    return Layout(tuple(runs), vocab_sizes, made_of, texts.folders() if texts else frozenset(), models)


def read_into(config: RunConfig, vocab_size: int, texts: StudyTexts) -> dict[str, Any]:
    """The model that the states of a run are read into, and its tokenizer, as JSON values."""
    tokenizer = texts.tokenizer(config)
    pretrained = {"pretrained": weights_fingerprint(config.model)} if config.model.path is not None else {}
    return {
        **pretrained,
        "model": plain_values(asdict(config.model)),
        "vocab_size": vocab_size,
        "weights": config.trainer.weights,
        "tokenizer": tokenizer.path.name,
        "end_of_text": tokenizer.end_of_text,
    }
