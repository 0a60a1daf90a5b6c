"""This machine: what tells it from others, and what is installed for it; no torch."""

import functools
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path


def machine() -> dict[str, str]:
    """What tells this machine from others, as far as its speed is concerned; imports no torch."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0] if names else name
    return {"processor": name, "torch": version("torch"), "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


@functools.cache
def torch_version() -> str:
    """The installed version of torch, found without importing it."""
    return version("torch").split("+")[0]


def compiler() -> str | None:
    """The C++ compiler that torch.compile needs, or None."""
    candidates = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return next((found for name in candidates if name and (found := shutil.which(name))), None)
