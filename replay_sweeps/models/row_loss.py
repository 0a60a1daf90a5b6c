"""The loss of each row: what training and validation need of a causal language model, and nothing more."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from replay_sweeps.models.pretrained import PLAIN_HEADS

IGNORED = -100  # in place of a token that is not learned


class RowLoss(nn.Module):
    """Mean next-token loss of each row.

    The loss of `transformers` would be of all rows together; its logits are as each architecture makes them, with their
    scale and cap.
    """

    def __init__(self, model: PreTrainedModel, fused: bool = False) -> None:
        super().__init__()
        self.model = model
        self.fused = fused and model.config.model_type in PLAIN_HEADS

    def forward(
        self,
        tokens_BT: Tensor,  # noqa: N803
        loss_mask_BT: Tensor | None = None,  # noqa: N803
        segments_BT: Tensor | None = None,  # noqa: N803
    ) -> Tensor:
        """Nats per predicted token; [B] from token numbers [B, T], the T-1 last of which are predicted.

        With `segments`, tokens see those of their own segment alone, whose positions begin at 0; a row's loss is then
        the mean over the tokens of `loss_mask`, 0 where there are none.
        """
        packed = {} if segments_BT is None else self._kept_apart(segments_BT[:, :-1])
        learned_BT = None if loss_mask_BT is None else loss_mask_BT[:, 1:]  # noqa: N806
        inputs = {"input_ids": tokens_BT[:, :-1], "use_cache": False, **packed}
        if self.fused:
            hidden_BTD = self.model.base_model(**inputs).last_hidden_state  # noqa: N806
            return fused_losses(hidden_BTD, self.model.get_output_embeddings().weight, tokens_BT[:, 1:], learned_BT)
        logits_BTV = self.model(**inputs).logits  # noqa: N806
        losses_BT = functional.cross_entropy(  # noqa: N806
            logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none"
        ).view(tokens_BT.shape[0], -1)
        if learned_BT is None:
            return losses_BT.float().mean(dim=1)
        return (losses_BT.float() * learned_BT).sum(dim=1) / learned_BT.sum(dim=1).clamp(min=1)

    def _kept_apart(self, segments_BT: Tensor) -> dict[str, Any]:  # noqa: N803
        """The positions and the attention mask that keep segments apart.

        A mask of our own serves every architecture. Where layers have a sliding window it would replace that; there
        `transformers` makes the masks, from positions that begin anew.
        """
        T = segments_BT.shape[1]  # noqa: N806
        place_T = torch.arange(T, device=segments_BT.device)  # noqa: N806
        begins_BT = segments_BT != segments_BT.roll(1, dims=1)  # noqa: N806
        begins_BT[:, 0] = True
        positions_BT = place_T - torch.where(begins_BT, place_T, 0).cummax(dim=1).values  # noqa: N806
        inputs = {"position_ids": positions_BT}
        config = self.model.config.get_text_config()
        if (getattr(config, "sliding_window", None) or T) < T or config._attn_implementation != "sdpa":
            return inputs
        same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]  # noqa: N806
        mask_BTT = same_BTT & (place_T[:, None] >= place_T)  # noqa: N806
        return {**inputs, "attention_mask": mask_BTT[:, None]}


@torch.compiler.disable
def fused_losses(
    hidden_BTD: Tensor,  # noqa: N803
    head_VD: Tensor,  # noqa: N803
    wanted_BT: Tensor,  # noqa: N803
    learned_BT: Tensor | None,  # noqa: N803
) -> Tensor:
    """Mean loss of each row by Liger's kernel, which never holds the logits of all tokens; [B], nats.

    Of one row after another: its gradient is scaled when the loss of all of its tokens is one number.
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    if learned_BT is not None:
        wanted_BT = wanted_BT.masked_fill(~learned_BT, IGNORED)  # noqa: N806
    tokens_B = (wanted_BT != IGNORED).sum(dim=1).clamp(min=1)  # noqa: N806
    rows = zip(hidden_BTD, wanted_BT, strict=True)
    sums = [liger_fused_linear_cross_entropy(hidden, head_VD, wanted, reduction="sum") for hidden, wanted in rows]
    return torch.stack(sums).float() / tokens_B
