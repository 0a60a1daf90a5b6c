"""The loss of each row: what training and validation need of a causal language model, and nothing more."""

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel


class RowLoss(nn.Module):
    """Mean next-token loss of each row.

    The loss of `transformers` would be of all rows together; its logits are as each architecture makes them, with their
    scale and cap.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor) -> Tensor:  # noqa: N803
        """Nats per predicted token; [B] from token numbers [B, T], the T-1 last of which are predicted."""
        logits_BTV = self.model(input_ids=tokens_BT[:, :-1], use_cache=False).logits  # noqa: N806
        losses_BT = functional.cross_entropy(  # noqa: N806
            logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none"
        ).view(tokens_BT.shape[0], -1)
        return losses_BT.float().mean(dim=1)
