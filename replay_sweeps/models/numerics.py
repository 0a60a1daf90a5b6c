"""What this machine computes fast and exactly: measured once for a store, since the answer is part of every key."""

import importlib.util
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replay_sweeps.config import ModelConfig, TrainerConfig
from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import fingerprint, read_record, write_record
from replay_sweeps.machine import compiler, machine, torch_version
from replay_sweeps.models.pretrained_checks import why_logits_needed

logger = logging.getLogger(__name__)


def _rates_file(store: Path) -> Path:
    return store / "numerics" / f"{fingerprint(machine())[:16]}.json"


def known_rates(store: Path) -> dict[str, Any] | None:
    """The measured rates of this machine, or None where nothing was measured yet; imports no torch."""
    try:
        return read_record(_rates_file(store))
    except (FileNotFoundError, DamagedFile):
        return None


def measured_rates(store: Path) -> dict[str, Any]:
    """The rates of matrix products in fp32 and bf16 (FLOP/s), measured on first use and kept in the store."""
    found = known_rates(store)
    if found is None:
        found = {**machine(), **_measure_rates()}
        write_record(_rates_file(store), found)
    return found


def _measure_rates() -> dict[str, Any]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 1024
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(size, size, device=device, dtype=dtype)
        best = float("inf")
        for _ in range(12):  # the fastest counts: other load on the machine only slows a product down
            begin = time.perf_counter()
            a @ a
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begin)
        rates[f"{name}_flops"] = 2.0 * size**3 / best
    return {"device": device, **rates}


def precision_of(trainer: TrainerConfig, rates: Mapping[str, Any] | None) -> str:
    """The precision of matrix products. Where nothing was measured yet, bf16 is assumed to be faster."""
    if trainer.weights == "bf16":
        return "bf16"
    faster = rates is None or rates["bf16_flops"] > 1.5 * rates["fp32_flops"]
    return trainer.precision if trainer.precision != "auto" else "bf16" if faster else "fp32"


def resolve(trainer: TrainerConfig, model: ModelConfig, rates: Mapping[str, Any] | None) -> dict[str, Any]:
    """The numerics that enter a root: the precision, compiling and loss that training will use, and torch's version.

    Where nothing was measured yet (a plan on a fresh store), bf16 and a working compiler are assumed.
    """
    compiled: bool | str = trainer.compile != "false" and compiler() is not None
    if compiled and trainer.compile == "layers":
        compiled = "layers"
    numerics = {"precision": precision_of(trainer, rates), "compile": compiled, "torch": torch_version()}
    # Defaults stay out of the key, so that states trained before the setting existed keep their names.
    if trainer.weights == "bf16":
        numerics["weights"] = "bf16"
    if trainer.activation_checkpointing:
        numerics["activation_checkpointing"] = True
    cuda = trainer.accelerator != "cpu" and rates is not None and rates["device"] == "cuda"
    wanted = trainer.fused_loss == "true" or (trainer.fused_loss == "auto" and cuda and why_not_fused() is None)
    if wanted and why_logits_needed(model) is None:
        numerics["fused_loss"] = True
    return numerics


def why_not_fused() -> str | None:
    """What Liger's fused loss lacks on this machine, or None."""
    if any(importlib.util.find_spec(name) is None for name in ("liger_kernel", "triton")):
        return "needs Liger's kernels and triton: pip install 'replay-sweeps[gpu]'"
    return None if shutil.which("nvidia-smi") else "needs a CUDA device"
