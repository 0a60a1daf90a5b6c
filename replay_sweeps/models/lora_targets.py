"""Which matrices of a model get LoRA adapters; without torch. `lora.py` puts the adapters in."""

from collections.abc import Collection

from replay_sweeps.config import ModelConfig
from replay_sweeps.models.pretrained import Pretrained, is_head, is_table


def lora_names(model: ModelConfig) -> list[str] | None:
    """The ends of the names of the modules that get adapters; None: all matrices of the layers get them."""
    if model.lora_targets == "all-linear":
        return None
    return [name.strip() for name in model.lora_targets.split(",") if name.strip()]


def lora_alpha(model: ModelConfig) -> float:
    """LoRA's alpha: adapters are scaled by alpha/rank; 2·rank where it is not set."""
    return model.lora_alpha if model.lora_alpha is not None else 2.0 * (model.lora_rank or 0)


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def adapted_matrices(known: Pretrained, targets: Collection[str] | None) -> dict[str, tuple[int, ...]]:
    """The shapes of the matrices that get adapters, by module; `targets`: what `lora_names` returns."""
    return {
        name: shape
        for name, shape in known.matrices().items()
        if len(shape) == 2
        and f"{name}.weight" in known.shapes
        and not is_table(name)
        and ".experts." not in name  # `transformers` keeps all experts of a layer in one tensor
        and (not is_head(name) if targets is None else any(_is_named(name, target) for target in targets))
    }
