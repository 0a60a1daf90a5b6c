"""The LightningModule: what one optimizer step does. The network and the behaviour are handed in."""

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from replay_sweeps.config import OptimizerConfig
from replay_sweeps.distributed.ranks import ALONE, Ranks, clip_grad_norm
from replay_sweeps.schedule.behaviour import Behaviour
from replay_sweeps.training.batches import ROW_INPUTS, Batch


class NonFiniteLoss(Exception):  # noqa: N818 - a result of training
    """The training loss became NaN or infinite."""


class ReplayModule(lightning.LightningModule):
    """Trains `network`; `behaviour` gives the learning rate, weight decay and resets as functions of the step.

    `row_loss` gives the loss of each row of a batch (it may be compiled). After a step that is logged, `logged` holds
    the step's metrics; else it is None.
    """

    def __init__(
        self,
        network: nn.Module,
        row_loss: nn.Module,
        behaviour: Behaviour,
        optimizer: OptimizerConfig,
        log_every: int,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self.network = network
        self._row_loss = [row_loss]  # in a list, which hides it from torch: its weights are those of `network`
        self.behaviour = behaviour
        self.settings = optimizer
        self.log_every = log_every
        self.ranks = ranks
        self.optimizer_state: dict[str, dict[str, Tensor]] = {}
        self.logged: dict[str, float | None] | None = None
        self._losses: list[tuple[Tensor, Tensor, Tensor]] = []
        self._gradient_norm: Tensor | None = None

    def configure_model(self) -> None:
        """Does nothing: the engine shards the network when it builds it, once for all segments."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with decay on matrices only. It starts from the parent state's optimizer state, where there is one."""
        named = [(name, parameter) for name, parameter in self.network.named_parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [parameter for _, parameter in named if parameter.dim() >= 2]},
            {"params": [parameter for _, parameter in named if parameter.dim() < 2], "weight_decay": 0.0},
        ]
        # On CPUs the fused kernel rounds the ends of a tensor differently from its middle: a shard, whose ends lie
        # elsewhere, would not end in the bits of the whole tensor.
        fused = self.ranks.world == 1 or named[0][1].is_cuda
        adamw = torch.optim.AdamW(
            groups,
            betas=(self.settings.beta1, self.settings.beta2),
            eps=self.settings.epsilon,
            fused=fused,
            foreach=not fused,
        )
        for name, parameter in named:
            if name in self.optimizer_state:
                adamw.state[parameter] = {
                    part: value if part == "step" else value.to(parameter.device)
                    for part, value in self.optimizer_state[name].items()
                }
        self.optimizer_state = {}
        return adamw

    def adamw(self) -> torch.optim.Optimizer:
        """The optimizer itself, without Lightning's wrapper."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def is_logged(self, step: int) -> bool:
        """Whether a step's metrics are kept: every `log_every`-th step, and the first `log_every` steps of a piece."""
        return step % self.log_every == 0 or step - self.behaviour.piece_at(step).start < self.log_every

    def begin_step(self, step: int) -> None:
        """Set the step's learning rate and weight decay; clear the optimizer's state where a piece resets it."""
        piece = self.behaviour.piece_at(step)
        adamw = self.adamw()
        adamw.param_groups[0]["weight_decay"] = piece.weight_decay
        for group in adamw.param_groups:
            group["lr"] = piece.rate.at(step)
        if piece.reset and step == piece.start:
            adamw.state.clear()
        self._losses.clear()
        self.logged = None

    def sync_gradients(self, sync: bool) -> None:
        """Say whether the next backward pass of a sharded network reduces the gradients over the ranks.

        Without, each rank adds up its own gradients until the last micro-batch of the step.
        """
        if isinstance(self._row_loss[0], FSDPModule):
            self._row_loss[0].set_requires_gradient_sync(sync)

    def on_before_batch_transfer(self, batch: Batch, _: int) -> Batch:
        """Pin a batch that goes to a GPU: its copy then overlaps with the step before."""
        if self.device.type != "cuda":
            return batch
        return {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The micro-batch's part of the step's loss, nats per token: the step's loss is the mean over micro-batches."""
        losses = self._row_loss[0](*(batch[name] for name in ROW_INPUTS if name in batch))
        self._losses.append((losses.detach(), batch["weight"], batch["is_target"]))
        return (losses * batch["weight"]).sum()

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by the norm over all gradients; the norm is logged."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.ranks.world == 1:
            self._gradient_norm = nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        else:
            self._gradient_norm = clip_grad_norm(parameters, self.settings.gradient_clip, self.ranks)

    def end_step(self, step: int) -> None:
        """Set `logged` if the step is logged. Raises NonFiniteLoss."""
        if not self.is_logged(step):
            return
        assert self._gradient_norm is not None
        losses, weight, is_target = (self.ranks.gather(torch.cat(parts)) for parts in zip(*self._losses, strict=True))
        if not math.isfinite(float(losses.sum())):
            raise NonFiniteLoss(f"the training loss is {float(losses.mean())} at step {step}")
        self.logged = {
            "train_target_loss": _mean(losses, weight, is_target),
            "train_generic_loss": _mean(losses, weight, ~is_target),
            "gradient_norm": float(self._gradient_norm),
            "learning_rate": self.behaviour.piece_at(step).rate.at(step),
        }


def _mean(losses: Tensor, weight: Tensor, rows: Tensor) -> float | None:
    """The mean loss over the learned tokens of the selected rows; None where no row is selected."""
    return float((losses[rows] * weight[rows]).sum() / weight[rows].sum()) if rows.any() else None
