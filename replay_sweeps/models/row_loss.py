"""The loss of each row, of which training and validation are made.

Shapes: B rows, T tokens of a row, D width of the hidden states, V size of the vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from replay_sweeps.models.pretrained import PLAIN_HEADS

IGNORED = -100  # the label of a token that is not learned


class RowLoss(nn.Module):
    """Mean next-token loss of each row; the loss that `transformers` computes is the mean over all rows.

    The logits are those of the model's own architecture, which may scale or cap them.
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
        """Nats per predicted token [B], from token ids [B, T] of which the last T-1 are predicted.

        With segments, a token sees the tokens of its own segment alone, and positions begin at 0 in each segment. The
        loss of a row is then the mean over the tokens of `loss_mask`, 0 where there are none.
        """
        packed = {} if segments_BT is None else self._segment_inputs(segments_BT[:, :-1])
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

    def _segment_inputs(self, segments_BT: Tensor) -> dict[str, Any]:  # noqa: N803
        """The positions and the attention mask with which the tokens of a segment do not see other segments.

        A mask given to `transformers` replaces the one that it would make, sliding windows included. So where layers
        have a window, it gets the positions alone and makes its masks from them.
        """
        T = segments_BT.shape[1]  # noqa: N806
        index_T = torch.arange(T, device=segments_BT.device)  # noqa: N806
        begins_BT = segments_BT != segments_BT.roll(1, dims=1)  # noqa: N806
        begins_BT[:, 0] = True
        positions_BT = index_T - torch.where(begins_BT, index_T, 0).cummax(dim=1).values  # noqa: N806
        inputs = {"position_ids": positions_BT}
        config = self.model.config.get_text_config()
        if (getattr(config, "sliding_window", None) or T) < T or config._attn_implementation != "sdpa":
            return inputs
        same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]  # noqa: N806
        mask_BTT = same_BTT & (index_T[:, None] >= index_T)  # noqa: N806
        return {**inputs, "attention_mask": mask_BTT[:, None]}


@torch.compiler.disable
def fused_losses(
    hidden_BTD: Tensor,  # noqa: N803
    head_VD: Tensor,  # noqa: N803
    labels_BT: Tensor,  # noqa: N803
    learned_BT: Tensor | None,  # noqa: N803
) -> Tensor:
    """Mean loss of each row, [B] in nats, by Liger's kernel, which never holds the logits of all tokens.

    The kernel is called once for each row, since it can scale its gradient only where it returns a single number.
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    if learned_BT is not None:
        labels_BT = labels_BT.masked_fill(~learned_BT, IGNORED)  # noqa: N806
    tokens_B = (labels_BT != IGNORED).sum(dim=1).clamp(min=1)  # noqa: N806
    rows = zip(hidden_BTD, labels_BT, strict=True)
    sums = [liger_fused_linear_cross_entropy(hidden, head_VD, labels, reduction="sum") for hidden, labels in rows]
    return torch.stack(sums).float() / tokens_B
