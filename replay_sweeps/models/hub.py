"""The files of a pretrained model in a folder, in the Hugging Face cache or on the hub; without torch."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay_sweeps.errors import UserError, one_line
from replay_sweeps.files import file_checksum

HUB_TIMEOUT = 10.0  # seconds to wait for the hub's answer
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES, PICKLES_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# fetched with the weights: the tokenizer, and settings of generation
OTHER_FILES = ["generation_config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja"]

Shapes = Mapping[str, tuple[int, ...]]  # by tensor name


@dataclass(frozen=True)
class WeightFile:
    """A file of weights: the shapes of its tensors, and a hash of its bytes."""

    name: str
    shapes: Shapes  # empty for a pickle, which is not opened
    bytes: int
    checksum: Callable[[], str]  # SHA-256; for a file that is not on this machine, the one that the hub gives


@dataclass(frozen=True)
class ModelFiles:
    """What planning reads of a model: its configuration and the headers of its weights."""

    config: dict[str, Any]
    config_checksum: str
    files: tuple[WeightFile, ...]


def is_hub_id(path: str) -> bool:
    """Whether a path is no folder on this machine and has the form of a hub id."""
    return not Path(path).expanduser().is_dir() and bool(re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path))


def local_folder(path: str, revision: str | None, allow_pickle: bool) -> Path | None:
    """The folder of a model on this machine: `path` itself, or a complete snapshot in the cache; else None."""
    if not is_hub_id(path):
        return Path(path).expanduser()
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(path, CONFIG, revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    try:
        names = _local_weight_names(folder, allow_pickle)
    except ValueError:
        return None
    return folder if names and all((folder / name).exists() for name in names) else None


def weight_names(there: Collection[str], read: Callable[[str], bytes], allow_pickle: bool) -> list[str]:
    """The names of a model's weight files among the files `there`; safetensors are preferred, as in `transformers`.

    Raises ValueError where an index cannot be read.
    """
    for whole, index in [(WEIGHTS, INDEX), *([(PICKLES, PICKLES_INDEX)] if allow_pickle else [])]:
        if whole in there:
            return [whole]
        if index in there:
            try:
                return sorted(set(json.loads(read(index))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise ValueError(f"{index} cannot be read") from error
    return []


def _local_weight_names(folder: Path, allow_pickle: bool) -> list[str]:
    there = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    return weight_names(there, lambda name: (folder / name).read_bytes(), allow_pickle)


def read_local(folder: Path, allow_pickle: bool) -> ModelFiles:
    """Read a model's folder: configuration and headers. Raises UserError with a line for what is missing or damaged."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give a folder that save_pretrained wrote, or a hub id")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        checksum = file_checksum(folder / CONFIG)
        assert isinstance(config, dict)
    except (OSError, ValueError, AssertionError):
        raise UserError(f"{folder} has no readable config.json: give a folder that save_pretrained wrote") from None
    try:
        names = _local_weight_names(folder, allow_pickle)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None
    if not names:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        why = f"only {pickled[0].name}, which would be unpickled" if pickled else "no weights"
        other = ", or model.allow_pickle=true if you trust their author" if (folder / PICKLES).exists() else ""
        raise UserError(f"{folder} holds {why}: give weights as *.safetensors ({WEIGHTS} or {INDEX}){other}")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}, which its index names")
    try:
        return ModelFiles(config, checksum, tuple(_local_file(folder / name) for name in names))
    except ValueError as error:
        raise UserError(str(error)) from None


def _local_file(file: Path) -> WeightFile:
    shapes = header(file) if file.suffix == ".safetensors" else {}
    blob = file.resolve().name  # the cache names a file of the hub by its hash
    known = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else None
    return WeightFile(file.name, shapes, file.stat().st_size, lambda: known or file_checksum(file))


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file. Raises ValueError when the file is damaged or truncated."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > size:
                raise ValueError
            entries = json.loads(opened.read(length))
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged: it is no safetensors file") from None
    if size != 8 + length + end:
        raise ValueError(f"{file} is damaged: {size:,} bytes, where {8 + length + end:,} are announced; fetch it again")
    return shapes


def read_remote(path: str, revision: str | None, allow_pickle: bool) -> ModelFiles:
    """Read a model's configuration and the headers of its weights from the hub; no weights are fetched.

    Raises UserError with one line when the hub cannot be reached or has no such model.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download

        api = HfApi()
        info = api.model_info(path, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT)
        there = {file.rfilename: file for file in info.siblings or ()}

        def file_of(name: str) -> Path:
            return Path(hf_hub_download(path, name, revision=info.sha))

        names = weight_names(there, lambda name: file_of(name).read_bytes(), allow_pickle)
        if CONFIG not in there or not names:
            safe = "" if allow_pickle else " as safetensors"
            raise UserError(f"the hub's {path} is no model that can be used: it has no {CONFIG} or no weights{safe}")
        shapes: dict[str, Shapes] = {}
        if names[0].endswith(".safetensors"):
            metadata = api.get_safetensors_metadata(path, revision=info.sha, timeout=HUB_TIMEOUT)
            for name, file in metadata.files_metadata.items():
                shapes[name] = {tensor: tuple(entry.shape) for tensor, entry in file.tensors.items()}
        files = tuple(_remote_file(name, there[name], shapes.get(name, {})) for name in names)
        config = file_of(CONFIG)
        return ModelFiles(json.loads(config.read_bytes()), file_checksum(config), files)
    except UserError:
        raise
    except Exception as error:  # whatever a hub may raise: the user mends the name or the network
        raise UserError(out_of_reach(path, error)) from error


def _remote_file(name: str, file: Any, shapes: Shapes) -> WeightFile:
    if file.lfs is None:
        raise ValueError(f"{name} is no file of weights")
    checksum = file.lfs.sha256
    return WeightFile(name, shapes, file.size or 0, lambda: checksum)


def out_of_reach(path: str, error: BaseException) -> str:
    """The line for a hub id that leads to no model."""
    return (
        f"there is no folder {path} here, nor is it whole in the Hugging Face cache, and the hub does not give it "
        f"({one_line(error)}): give a folder that save_pretrained wrote, or try again with a network"
    )


def fetch(path: str, revision: str | None, allow_pickle: bool) -> Path:
    """The folder of a model, fetched from the hub unless it is on this machine. Raises UserError with one line."""
    folder = local_folder(path, revision, allow_pickle)
    if folder is not None:
        return folder
    try:
        from huggingface_hub import HfApi, snapshot_download

        HfApi().model_info(path, revision=revision, timeout=HUB_TIMEOUT)  # fails soon; a download tries for a minute
        weights = ["model*.safetensors", INDEX, *(["pytorch_model*.bin", PICKLES_INDEX] if allow_pickle else [])]
        return Path(snapshot_download(path, revision=revision, allow_patterns=[CONFIG, *weights, *OTHER_FILES]))
    except Exception as error:
        raise UserError(out_of_reach(path, error)) from error
