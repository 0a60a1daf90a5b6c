"""A small model as `transformers` saves it, with a tokenizer of its own."""

from collections.abc import Iterable
from pathlib import Path

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tokenizer(folder: Path, text: Iterable[Path], chat_template: str | None = None) -> Path:
    """Write a tokenizer of 400 tokens learned on the files of `text` to `folder`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    special = ["<eos>", *(["<|im_start|>", "<|im_end|>"] if chat_template else [])]
    bpe.train([str(file) for file in text], vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<eos>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return folder


def write_small_model(
    folder: Path, text: Iterable[Path], positions: int = 64, layers: int = 1, chat_template: str | None = None
) -> Path:
    """Write an untrained Llama and a tokenizer learned on the files of `text` to `folder`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    write_tokenizer(folder, text, chat_template)
    shape = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 48}
    LlamaForCausalLM(LlamaConfig(vocab_size=448, max_position_embeddings=positions, **shape)).save_pretrained(folder)
    return folder
