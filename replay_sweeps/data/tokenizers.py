"""Text to tokens: a Hugging Face tokenizer, or byte-level BPE trained on the generic training text."""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.config import TokenizerConfig
from replay_sweeps.data.token_store import dtype_for
from replay_sweeps.errors import UserError, one_line
from replay_sweeps.models.hub import HUB_TIMEOUT
from replay_sweeps.parallel import batched, ordered_map

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

BPE = "bpe"
DEFAULT_VOCAB_SIZE = 4096
SMALLEST_VOCAB_SIZE = 257  # 256 bytes and end of text
END_OF_TEXT = "<|endoftext|>"

TOKENIZER_FILE = "tokenizer.json"
TEMPLATE_FILE = "chat_template.jinja"
BATCH_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer in memory, with its size and the files that it is stored as."""

    tokenizer: "Tokenizer"
    vocab_size: int  # one more than the largest token
    end_of_text: int
    files: dict[str, bytes]  # by name: what `AutoTokenizer.from_pretrained` reads


def check_tokenizer(config: TokenizerConfig) -> list[str]:
    """What is wrong with a tokenizer's configuration as far as can be seen without loading it, one line each."""
    return [
        *_check_tokenizer_path(config),
        *(f"tokenizer.chat_template: {problem}" for problem in check_template_file(config)),
    ]


def check_template_file(config: TokenizerConfig) -> list[str]:
    """What is wrong with the file of a chat template, where one is given."""
    if config.chat_template is None or Path(config.chat_template).expanduser().is_file():
        return []
    return [f"there is no file {config.chat_template}; give a chat template as a Jinja file"]


def own_template(config: TokenizerConfig) -> str | None:
    """The chat template that the configuration gives, where it gives one."""
    return Path(config.chat_template).expanduser().read_text() if config.chat_template is not None else None


def _check_tokenizer_path(config: TokenizerConfig) -> list[str]:
    if config.path == BPE:
        if config.vocab_size is not None and config.vocab_size < SMALLEST_VOCAB_SIZE:
            need = f"bytes and end of text need {SMALLEST_VOCAB_SIZE}"
            return [f"tokenizer.vocab_size={config.vocab_size} is too small: {need}"]
        return []
    problems = []
    path = Path(config.path).expanduser()
    if path.is_dir():
        if not any((path / name).exists() for name in (TOKENIZER_FILE, "tokenizer_config.json", "tokenizer.model")):
            problems.append(f"tokenizer.path: no tokenizer in the folder {path}")
    elif path.exists() or config.path.startswith((".", "/", "~")) or config.path.count("/") > 1:
        problems.append(f"tokenizer.path: {path} is not a folder with a tokenizer")
    return problems


def _read_pretrained(path: str, revision: str | None) -> Any:
    """The Hugging Face tokenizer from a folder, the cache, or the hub; its code is never run."""
    from huggingface_hub import HfApi
    from transformers import AutoTokenizer

    folder = Path(path).expanduser()
    if folder.is_dir():
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError):
        HfApi().model_info(path, revision=revision, timeout=HUB_TIMEOUT)  # fails at once, not in a minute
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)


def load_pretrained(config: TokenizerConfig) -> LoadedTokenizer:
    """A Hugging Face tokenizer by name or path. Raises UserError when there is none or it can't be used."""
    import tempfile

    try:
        pretrained = _read_pretrained(config.path, config.revision)
    except Exception as error:  # whatever a remote or damaged tokenizer may raise: the user mends the name
        raise UserError(f"tokenizer.path: {config.path!r} can't be loaded ({one_line(error)})") from error
    if not getattr(pretrained, "is_fast", False):
        raise UserError(f"tokenizer.path: {config.path!r} has no fast form ({TOKENIZER_FILE})")
    if pretrained.eos_token_id is None:
        raise UserError(f"tokenizer.path: {config.path!r} has no end-of-text (eos) token")
    pretrained.chat_template = own_template(config) or pretrained.chat_template
    with tempfile.TemporaryDirectory() as name:
        pretrained.save_pretrained(name)
        files = {file.name: file.read_bytes() for file in sorted(Path(name).iterdir()) if file.is_file()}
    tokens = pretrained.get_vocab().values()
    if config.vocab_size is not None and max(tokens) >= config.vocab_size:
        raise UserError(
            f"tokenizer.vocab_size={config.vocab_size} is too small: {config.path!r} has {max(tokens) + 1} tokens"
        )
    return loaded(files, max(tokens) + 1, pretrained.eos_token_id)


def loaded(files: dict[str, bytes], vocab_size: int, end_of_text: int) -> LoadedTokenizer:
    """A tokenizer from the content of its files, made ready for encoding documents whole."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(files[TOKENIZER_FILE].decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a document that speaks of end of text does not end there
    return LoadedTokenizer(tokenizer, vocab_size, end_of_text, files)


def train_bpe(texts: Iterable[str], vocab_size: int, chat_template: str | None = None) -> LoadedTokenizer:
    """Byte-level BPE of at most `vocab_size` tokens, the first of them end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],  # token 0
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(batched(texts, BATCH_CHARACTERS), trainer)
    size = tokenizer.get_vocab_size()
    if size < vocab_size:
        logger.warning("the generic text is too short for %d tokens: the vocabulary has %d", vocab_size, size)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT}
    files = {TOKENIZER_FILE: tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}
    if chat_template is not None:
        files[TEMPLATE_FILE] = chat_template.encode()
    return loaded(files, size, 0)


@contextmanager
def one_thread_a_batch() -> Iterator[None]:
    """Keep the library from spreading one batch over all processors: our own threads take a batch each."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def encode(tokenizer: LoadedTokenizer, texts: Iterable[str], workers: int, title: str) -> Iterator[NDArray[Any]]:
    """The tokens of `texts`, each text followed by end of text, in batches; the same for any number of workers."""
    from tqdm import tqdm

    dtype = dtype_for(tokenizer.vocab_size)

    def encode_batch(batch: list[str]) -> NDArray[Any]:
        tokens: list[int] = []
        for encoding in tokenizer.tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            tokens += encoding.ids
            tokens.append(tokenizer.end_of_text)
        return np.array(tokens, dtype=dtype)

    with (
        one_thread_a_batch(),
        ThreadPoolExecutor(workers) as pool,
        tqdm(desc=title, unit=" tokens", unit_scale=True, disable=None, leave=False) as bar,
    ):
        batches = batched(texts, BATCH_CHARACTERS)
        for tokens in ordered_map(pool if workers > 1 else None, encode_batch, batches, ahead=2 * workers):
            bar.update(len(tokens))
            yield tokens
