"""A small model as `transformers` saves it, with a tokenizer of its own."""

from collections.abc import Iterable
from pathlib import Path


def write_small_model(folder: Path, text: Iterable[Path], positions: int = 64) -> Path:
    """Write an untrained Llama and a tokenizer learned on the files of `text` to `folder`."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train([str(file) for file in text], vocab_size=400, special_tokens=["<eos>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<eos>").save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    LlamaForCausalLM(LlamaConfig(vocab_size=448, max_position_embeddings=positions, **shape)).save_pretrained(folder)
    return folder
