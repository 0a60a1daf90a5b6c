"""The LightningModule: what one optimizer step does. The network and the behaviour are handed in."""

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from replay_sweeps.config import OptimizerConfig
from replay_sweeps.distributed.ranks import ALONE, Ranks, clip_together
from replay_sweeps.schedule.behaviour import Behaviour
from replay_sweeps.training.batches import ROW_INPUTS, Batch


class NonFiniteLoss(Exception):  # noqa: N818 - a result of training
    """The training loss became NaN or infinite."""


class ReplayModule(lightning.LightningModule):
    """Trains `network` as `behaviour` says; the learning rate, weight decay and resets are functions of the step.

    `row_loss` gives the loss of each row of a batch (it may be compiled). After a step that is logged, `logged` holds
    its metrics.
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
        self._row_loss = [row_loss]  # in a list: it shares its weights with `network` and is no second child
        self.behaviour = behaviour
        self.settings = optimizer
        self.log_every = log_every
        self.ranks = ranks
        self.optimizer_state: dict[str, dict[str, Tensor]] = {}
        self.logged: dict[str, float | None] | None = None
        self._losses: list[tuple[Tensor, Tensor, Tensor]] = []
        self._gradient_norm: Tensor | None = None

    def configure_model(self) -> None:
        """Nothing: the network is sharded when it is built, once for all stretches."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, decay on matrices only; its state is that of the parent state, where there is one."""
        named = [(name, parameter) for name, parameter in self.network.named_parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [parameter for _, parameter in named if parameter.dim() >= 2]},
            {"params": [parameter for _, parameter in named if parameter.dim() < 2], "weight_decay": 0.0},
        ]
        # on CPUs the fused kernel rounds the ends of a tensor otherwise than its middle: a shard would not get its bits
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

    def is_logged(self, step: int) -> bool:
        """Whether a step's metrics are kept: every n-th, and each of the first n after a new piece begins."""
        return step % self.log_every == 0 or step - self.behaviour.piece_at(step).start < self.log_every

    def begin_step(self, step: int) -> None:
        """Set what the behaviour says for this step."""
        piece = self.behaviour.piece_at(step)
        adamw = self.optimizers(use_pl_optimizer=False)
        assert isinstance(adamw, torch.optim.Optimizer)
        adamw.param_groups[0]["weight_decay"] = piece.weight_decay
        for group in adamw.param_groups:
            group["lr"] = piece.rate.at(step)
        if piece.reset and step == piece.start:
            adamw.state.clear()
        self._losses.clear()
        self.logged = None

    def sync_gradients(self, sync: bool) -> None:
        """Whether the next backward pass of a sharded network reduces the gradients; else each rank adds up its own."""
        if isinstance(self._row_loss[0], FSDPModule):
            self._row_loss[0].set_requires_gradient_sync(sync)

    def on_before_batch_transfer(self, batch: Batch, _: int) -> Batch:
        """Pin a GPU's batch: its copy, and the reading of the next one, then go on beside the step before."""
        if self.device.type != "cuda":
            return batch
        return {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """The mean loss of the tokens, nats."""
        losses = self._row_loss[0](*(batch[name] for name in ROW_INPUTS if name in batch))
        self._losses.append((losses.detach(), batch["weight"], batch["is_target"]))
        return (losses * batch["weight"]).sum()

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by the norm over all gradients, and keep the norm for the log."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.ranks.world == 1:
            self._gradient_norm = nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        else:
            self._gradient_norm = clip_together(parameters, self.settings.gradient_clip, self.ranks)

    def end_step(self, step: int) -> None:
        """Gather the metrics of a logged step. Raises NonFiniteLoss."""
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
    """The mean loss of the tokens that some of the rows learn; None where there are no rows."""
    return float((losses[rows] * weight[rows]).sum() / weight[rows].sum()) if rows.any() else None
