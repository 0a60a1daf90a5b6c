"""The engine: a model of one shape in this process, built and compiled once, then used for every segment of it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from replay_sweeps.config import RunConfig
from replay_sweeps.distributed.ranks import ALONE, Ranks
from replay_sweeps.distributed.strategy import broadcast_weights, shard
from replay_sweeps.models.build import build_model, build_shape, initialise
from replay_sweeps.models.flops import flops_per_token
from replay_sweeps.models.layers import checkpoint_activations, compile_layers
from replay_sweeps.models.quiet import quiet_libraries
from replay_sweeps.models.row_loss import RowLoss
from replay_sweeps.store.state_files import read_weights


class Engine:
    """A model of one shape on this rank. It is compiled once; `load` sets its weights for each segment.

    `mfu_per_token_rate`: model FLOP utilisation for each token per second of all ranks together.
    """

    def __init__(
        self, run: RunConfig, vocab_size: int, numerics: Mapping[str, Any], peak_flops: float, ranks: Ranks = ALONE
    ) -> None:
        quiet_libraries()
        if run.trainer.threads:
            torch.set_num_threads(run.trainer.threads)
        cuda = torch.cuda.is_available() and run.trainer.accelerator != "cpu"
        self.device = torch.device("cuda", ranks.local_rank) if cuda else torch.device("cpu")
        self.ranks = ranks
        self.precision = numerics["precision"]
        self.dtype = torch.bfloat16 if numerics.get("weights") == "bf16" else torch.float32
        self.vocab_size = vocab_size
        self.mesh: DeviceMesh | None = None
        if ranks.world > 1 and run.trainer.strategy == "fsdp":
            self.mesh = init_device_mesh(self.device.type, (ranks.world,))
        build = build_model if self.mesh is None else build_shape
        self.network = build(run.model, vocab_size, self.dtype)
        if run.trainer.activation_checkpointing:
            checkpoint_activations(self.network)
        self.row_loss: Any = RowLoss(self.network, numerics.get("fused_loss", False))
        self._filled = False  # whether a sharded network has its buffers and frozen weights, which no state holds
        self._place(numerics["compile"])
        peak = run.trainer.peak_tflops * 1e12 if run.trainer.peak_tflops else peak_flops
        self.mfu_per_token_rate = flops_per_token(run.model, vocab_size, run.trainer.row_length) / (peak * ranks.world)
        self.micro_rows = run.trainer.micro_batch_rows or run.trainer.batch_rows // ranks.world
        self.conditions = {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "threads": torch.get_num_threads(),
            "world_size": ranks.world,
        }

    def _place(self, compiled: bool | str) -> None:
        """Bring the network to the device, whole or sharded, and compile it; a sharded one layer by layer."""
        if self.mesh is None:
            self.network.to(self.device)
        torch._dynamo.reset()  # graphs of an engine before this one must not count towards the compiler's limit
        torch._dynamo.config.optimize_ddp = False  # DDP would cut the graph: a copied model compiles as one alone does
        if compiled == "layers" or (compiled and self.mesh is not None):
            compile_layers(self.network)
        elif compiled:
            self.row_loss = torch.compile(self.row_loss, dynamic=False)
        if self.mesh is not None:
            shard(self.row_loss, self.network, self.mesh, self.device)

    def load(self, run: RunConfig, folder: Path | None) -> None:
        """Set all weights: to those of the verified state in `folder`, or (None) to the initial ones.

        For a sharded network, rank 0 alone builds the whole network, in CPU memory, and broadcasts it. Each rank then
        reads its own shards of a state. Raises DamagedFile.
        """
        if self.mesh is None:
            if folder is None:
                initialise(self.network, run.model)
        elif folder is None or not self._filled:
            whole = build_model(run.model, self.vocab_size, self.dtype) if self.ranks.is_rank_zero else None
            if whole is not None and folder is None:
                initialise(whole, run.model)
            broadcast_weights(whole, self.network, self.ranks)
            self._filled = True
        if folder is not None:
            read_weights(folder, self.network)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The context in which validation computes with the precision of training."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
