"""What a run costs before it is begun: memory of each device, whether it fits, and hours; no torch."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from replay_sweeps.config import RunConfig, TrainerConfig
from replay_sweeps.models.flops import adapter_parameters, matrix_parameters, parameters
from replay_sweeps.models.numerics import precision_of, resolve

MOMENTS = 2  # of AdamW, each as large as what is trained
MOST_DEVICES = 1024  # that advice speaks of
KINDS = ("rows", "anew", "weights", "adapters", "devices")  # of settings that take less memory
Rates = Mapping[str, Any] | None  # of this machine, as `numerics.known_rates` gives them
ELSEWHERE = "a device of the machines that the launcher starts on"
RANK = 16  # of the adapters that advice speaks of


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while a run is trained, and what they are of."""

    parameters: int
    trained_parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Device:
    """What one model is trained on."""

    name: str
    available: int | None  # bytes; None where that is unknown


def memory(run: RunConfig, vocab_size: int, rates: Rates) -> Memory:
    """The memory that a run takes on each of its devices; `rates` are those of this machine, where they are known.

    Weights, gradients and AdamW's moments take 4·4 bytes a trained weight in fp32, 4·2 in bf16; with LoRA the frozen
    weights take 4 or 2, the adapters 4·4. FSDP divides all of this by the number of devices, and gathers two layers and
    the embeddings while they are used; gradients that are added up over micro-batches stay whole until the last, as
    those of copies do (DDP), so that both end in the same bits. Activations: see `activation_bytes`.
    """
    model, trainer = run.model, run.trainer
    width = 2 if trainer.weights == "bf16" else 4
    base, adapters = parameters(model, vocab_size), adapter_parameters(model)
    trained, trained_width = (base, width) if adapters is None else (adapters, 4)
    held = base * width + (adapters or 0) * 4
    gathered, shards, added_up = 0, 1, False
    if trainer.strategy == "fsdp":
        shards = trainer.world_size
        added_up = trainer.batch_rows > shards * (trainer.micro_batch_rows or trainer.batch_rows)
        tables = vocab_size * model.hidden_size * (1 if model.tie_embeddings else 2)
        gathered = width * (2 * max(0, base - tables) // max(1, model.layers) + tables) if shards > 1 else 0
    return Memory(
        base + (adapters or 0),
        trained,
        held // shards + gathered,
        trained * trained_width // (1 if added_up else shards),
        MOMENTS * trained * trained_width // shards,
        activation_bytes(run, vocab_size, rates),
    )


def trained_bytes(run: RunConfig, vocab_size: int) -> int:
    """Bytes of the weights that a run trains: what a state of it holds, without the optimizer's."""
    adapters = adapter_parameters(run.model)
    if adapters is not None:
        return 4 * adapters
    return parameters(run.model, vocab_size) * (2 if run.trainer.weights == "bf16" else 4)


def activation_bytes(run: RunConfig, vocab_size: int, rates: Rates) -> int:
    """What a step holds besides weights, gradients and moments: what the backward pass needs, and logits.

    Counted from what autograd keeps of a Llama layer with fused attention: for each token the residual stream and the
    norms in fp32, the rest in the precision of matrix products. Logits are held in it and, twice, in fp32. Products in
    bf16 of fp32 weights keep a bf16 copy of these. Where activations are computed anew, a layer's input alone stays.
    """
    model, trainer = run.model, run.trainer
    numerics = resolve(trainer, model, rates)
    world = trainer.world_size
    rows = trainer.micro_batch_rows or max(1, trainer.batch_rows // world)
    half = numerics["precision"] == "bf16"
    size, hidden = (2 if half else 4), model.hidden_size
    keys = hidden * model.key_value_heads // model.heads if model.heads else hidden
    layer = size * (4 * model.mlp_size + 2 * keys) + 32 * hidden
    layers = model.layers * layer
    if trainer.activation_checkpointing:
        layers = model.layers * 4 * hidden + layer
    logits = 0 if numerics.get("fused_loss") else vocab_size * (size + 8)
    copies = 2 * matrix_parameters(model, vocab_size) if half and trainer.weights == "fp32" else 0
    return rows * trainer.row_length * (layers + logits) + copies


def device_of(trainer: TrainerConfig, rates: Rates) -> Device:
    """What a run is trained on here: a GPU as `nvidia-smi` tells of it, or the processors and what memory is free."""
    kind = rates["device"] if rates and trainer.accelerator == "auto" else trainer.accelerator
    if kind != "cpu":
        found = _gpu()
        if found is not None:
            return found
        if kind == "cuda":
            return Device("a GPU", None)
    free = _free_memory()
    return Device("the main memory", free // trainer.devices if free is not None else None)


@cache
def _gpu() -> Device | None:
    """The smallest GPU of this machine."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
        size, name = min((int(line.split(",")[0]), line.split(",")[1].strip()) for line in lines)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
    return Device(name, size * 2**20)


def _free_memory() -> int | None:
    """Bytes of main memory that programs can still take: of the machine, and of the container that this is."""
    found = []
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # no container, or none with a limit
        limit, used, kinds = (Path(f"/sys/fs/cgroup/memory.{name}").read_text() for name in ("max", "current", "stat"))
        cached = dict(line.split() for line in kinds.splitlines())["file"]  # given up when programs need it
        found.append(int(limit) - int(used) + int(cached))
    return min(found) if found else None


def advice(run: RunConfig, vocab_size: int, rates: Rates, available: int) -> list[str]:
    """Settings that would make a run fit into so many bytes: each that does alone, else several together."""

    def fits(changed: RunConfig) -> bool:
        return memory(changed, vocab_size, rates).total <= available

    found = [next((words for words, changed in _changes(run, kind) if fits(changed)), "") for kind in KINDS]
    if any(found[:-1]):
        return list(filter(None, found))
    together: list[str] = []
    for kind in KINDS:
        words, changed = "", run
        for words, changed in _changes(run, kind):
            if fits(changed):
                return [" ".join([*together, words]), *filter(None, found)]
        if words:
            together, run = [*together, words], changed  # as far as it goes
    return []


def _changes(run: RunConfig, kind: str) -> Iterator[tuple[str, RunConfig]]:
    """Settings of a kind that take less memory, in words and as a run, the mildest first."""
    trainer, model = run.trainer, run.model
    world = trainer.world_size
    rows = trainer.micro_batch_rows or trainer.batch_rows // world
    if kind == "rows":
        for fewer in (few for few in range(rows - 1, 0, -1) if trainer.batch_rows // world % few == 0):
            yield f"trainer.micro_batch_rows={fewer}", replace(run, trainer=replace(trainer, micro_batch_rows=fewer))
    elif kind == "anew" and not trainer.activation_checkpointing:
        anew = replace(trainer, activation_checkpointing=True)
        yield "trainer.activation_checkpointing=true", replace(run, trainer=anew)
    elif kind == "weights" and trainer.weights == "fp32":
        words = "trainer.weights=bf16" + (" trainer.precision=bf16" if trainer.precision == "fp32" else "")
        yield words, replace(run, trainer=replace(trainer, weights="bf16"))
    elif kind == "adapters" and model.path is not None and model.lora_rank is None:
        yield f"model.lora_rank={RANK}", replace(run, model=replace(model, lora_rank=RANK))
    devices = max(2, 2 * world if trainer.strategy == "fsdp" else world)
    while kind == "devices" and devices <= MOST_DEVICES:
        if trainer.batch_rows % devices == 0:
            share = min(rows, trainer.batch_rows // devices)
            sharded = replace(trainer, strategy="fsdp", devices=devices, nodes=1, micro_batch_rows=share)
            yield f"trainer.strategy=fsdp on {devices} devices of as much memory each", replace(run, trainer=sharded)
        devices *= 2


def memory_report(run: RunConfig, vocab_size: int, rates: Rates, elsewhere: bool = False) -> dict[str, Any]:
    """The plan's `memory`: bytes of each kind on a device, whether they fit there, and what would.

    `elsewhere`: the run is trained on other machines than this one, whose memory is not known here.
    """
    needed = memory(run, vocab_size, rates)
    device = Device(ELSEWHERE, None) if elsewhere else device_of(run.trainer, rates)
    fits = None if device.available is None else needed.total <= device.available
    devices = run.trainer.world_size
    strategy = "single" if devices == 1 else run.trainer.strategy.replace("auto", "ddp")
    helps = advice(run, vocab_size, rates, device.available) if device.available and not fits else []
    return {
        **asdict(needed),
        "total": needed.total,
        "strategy": strategy,
        "devices": devices,
        "device": device.name,
        "available": device.available,
        "fits": fits,
        "would_fit": helps,
    }


def too_large(report: Mapping[str, Any], name: str) -> str | None:
    """One line for a model that does not fit, or None."""
    if report["fits"] is not False:
        return None
    parts = ", ".join(
        f"{report[part] / 1e9:.1f} of {part}" for part in ("weights", "gradients", "optimizer", "activations")
    )
    helps = "; ".join(report["would_fit"]) or f"no setting, nor FSDP on {MOST_DEVICES} devices"
    return (
        f"model {name} needs about {report['total'] / 1e9:.1f} GB of memory on each device ({parts}), and "
        f"{report['device']} has {report['available'] / 1e9:.1f} GB; would fit: {helps}"
    )


def memory_of(
    runs: Iterable[RunConfig], vocab_sizes: Iterable[int], rates: Rates, elsewhere: bool = False
) -> tuple[dict[str, Any], str]:
    """The report of the run that takes the most memory, and its model's name."""
    found: dict[Any, tuple[dict[str, Any], str]] = {}
    for run, vocab_size in zip(runs, vocab_sizes, strict=True):
        shape = (replace(run.model, init_seed=0), run.trainer, vocab_size)
        if shape not in found:
            found[shape] = memory_report(run, vocab_size, rates, elsewhere), run.model.name
    return max(found.values(), key=lambda item: item[0]["total"])


def hours(flops: float, trainer: TrainerConfig, rates: Rates) -> float | None:
    """Hours that so many operations take on a run's devices at `trainer.utilisation` of their peak; None if unknown.

    The peak is `trainer.peak_tflops` of one device, or what was measured on this machine.
    """
    peak = trainer.peak_tflops * 1e12 if trainer.peak_tflops else None
    if peak is None and rates is not None:
        peak = rates[f"{precision_of(trainer, rates)}_flops"]
    return flops / (trainer.utilisation * peak * trainer.world_size) / 3600 if peak else None
