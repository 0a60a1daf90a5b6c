"""A run as the tree sees it: its behaviour below the root of its tree, and where it is observed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.data.prepared_text import TextNames
from replay_sweeps.files import fingerprint
from replay_sweeps.models.flops import flops_per_token
from replay_sweeps.models.lora_targets import lora_alpha, lora_names
from replay_sweeps.models.pretrained import weights_fingerprint
from replay_sweeps.schedule.behaviour import Behaviour, TargetOrder, behaviour, key
from replay_sweeps.schedule.data_schedule import DataSchedule
from replay_sweeps.schedule.of_run import data_schedule, lr_pieces
from replay_sweeps.tree.state_name import tree_of

SEMANTICS = 2  # of training: raised when the same behaviour would end in other weights


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
    target_store: str  # fingerprint of the target text's training store
    generic_store: str  # fingerprint of the generic text's training store
    observations: tuple[Observation, ...]
    numerics: Mapping[str, Any]  # as they enter the root: precision, compile, version of torch
    vocab_size: int

    def key(self, step: int) -> str:
        """The name of this run's state after `step` optimizer steps."""
        return key(self.root, self.behaviour, step)

    @property
    def steps(self) -> int:
        return self.behaviour.steps

    @property
    def tree(self) -> str:
        """The folder of all states below this run's root."""
        return tree_of(self.root)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step."""
        return self.config.trainer.tokens_per_step

    @property
    def flops_per_step(self) -> float:
        """Operations of an optimizer step."""
        row_length = self.config.trainer.row_length
        return self.tokens_per_step * flops_per_token(self.config.model, self.vocab_size, row_length)


def root_settings(run: RunConfig, text: TextNames, numerics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """What shapes a state besides the behaviour: the root of its tree. `weights` names the initial weights.

    Every value is written by name, so that a dataclass of the schema may grow a field and no state is renamed.
    """
    packed = {"packed": True} if run.packed else {}
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


def plan_run(
    run: RunConfig, target: TextNames, generic: TextNames, root: str, numerics: Mapping[str, Any], vocab_size: int
) -> PlannedRun:
    """Lay out one run below the root with this fingerprint: schedule, behaviour, the states at which it is observed."""
    data = data_schedule(run)
    pieces, reset = lr_pieces(run, data)
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
    stores = (target.train, generic.train)
    return PlannedRun(identity[:12], run, data, planned, root, *stores, tuple(observed), numerics, vocab_size)
