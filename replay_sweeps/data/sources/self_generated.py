"""Replay text without pre-training data: documents sampled from a pretrained model (Marek et al., arXiv 2605.26097).

Chunks of documents are written one by one. Each chunk's randomness follows from the seed and its number alone, so that
an interrupted command goes on to the same text, and a larger `max_documents` keeps what is there.
"""

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from replay_sweeps.config import ModelConfig, SourceConfig, TokenizerConfig
from replay_sweeps.data.tokenizers import check_tokenizer
from replay_sweeps.errors import UserError
from replay_sweeps.files import file_checksum, fingerprint, recalled, write_record
from replay_sweeps.models.hub import fetch, local_folder
from replay_sweeps.models.pretrained import ANY_LENGTH, weights_fingerprint, with_pretrained_shape
from replay_sweeps.models.pretrained_checks import check_pretrained

logger = logging.getLogger(__name__)

KIND = "self_generated"
VERSION = 1  # raised whenever the same settings would give other documents
CHUNK_DOCUMENTS = 64  # sampled at once
SECONDS_BETWEEN_LINES = 30.0  # of progress, where there is no terminal
# the files that turn tokens into text, and that name the tokens which end a text
READ_WITH_WEIGHTS = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "generation_config.json")


def model_of(source: SourceConfig) -> ModelConfig:
    """The model that the documents are sampled from."""
    assert source.path is not None
    tokenizer = TokenizerConfig(source.path, revision=source.revision)
    return ModelConfig(source.path, tokenizer, path=source.path, revision=source.revision)


def model_folder(source: SourceConfig) -> Path | None:
    """The folder of the model that the documents are sampled from; None while it is only on the hub."""
    assert source.path is not None
    return local_folder(source.path, source.revision, allow_pickle=False)


def check(source: SourceConfig) -> list[tuple[str, str]]:
    """What is wrong with the model and the settings of sampling: (setting, what is wrong); loads nothing."""
    if source.path is None:
        return [("path", "there is no model to sample from: model=pretrained model.path=FOLDER")]
    model = model_of(source)
    if model_problems := check_pretrained(model):
        return [("path", problem) for _, problem in model_problems]
    problems = [
        ("path", f"the model's own tokenizer is needed: {problem.removeprefix('tokenizer.path: ')}")
        for problem in check_tokenizer(model.tokenizer)
    ]
    if source.max_documents is None:
        problems.append(("max_documents", "needs a value: how many documents to sample"))
    if source.temperature <= 0:
        problems.append(("temperature", "must be above 0"))
    positions = with_pretrained_shape(model).max_positions
    if not 1 <= source.document_tokens <= positions:
        most = f" and at most the model's {positions:,} positions" if positions < ANY_LENGTH else ""
        problems.append(("document_tokens", f"must be at least 1{most}"))
    return problems


def documents_fingerprint(source: SourceConfig) -> str:
    """A hash of all that decides which documents are sampled, except how many."""
    return fingerprint(
        {
            "version": VERSION,
            "weights": weights_fingerprint(model_of(source)),
            "tokenizer": _tokenizer_checksums(model_folder(source)),
            "temperature": source.temperature,
            "document_tokens": source.document_tokens,
            "seed": source.generation_seed,
            "chunk_documents": CHUNK_DOCUMENTS,
        }
    )


@functools.cache
def _tokenizer_checksums(folder: Path | None) -> dict[str, str]:
    patterns = READ_WITH_WEIGHTS if folder else ()
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})  # type: ignore[union-attr]
    return {file.name: file_checksum(file) for file in files}


def documents(source: SourceConfig, sampled: Path) -> Iterator[str]:
    """The sampled documents. Each chunk is written below `sampled`; one that is there is not sampled again.

    Raises UserError where the device has too little memory for the model and a chunk.
    """
    count = source.max_documents
    assert count is not None
    folder = sampled / documents_fingerprint(source)
    sampler: _Sampler | None = None
    with closing(_Progress(count)) as progress:
        for number, first in enumerate(range(0, count, CHUNK_DOCUMENTS)):
            path = folder / f"{number:06}.json"
            chunk = recalled(path, "sampled text is damaged and is sampled again")
            tokens = 0
            if chunk is None:
                sampler = sampler or _Sampler(source)
                chunk = sampler.sample(number)
                write_record(path, chunk)
                tokens = chunk["tokens"]
            documents = chunk["documents"][: count - first]
            progress.add(len(documents), tokens)
            yield from documents


class _Sampler:
    """The model in memory, on the GPU where there is one."""

    def __init__(self, source: SourceConfig) -> None:
        import torch
        from transformers import AutoTokenizer

        from replay_sweeps.models.build import load_pretrained

        model = model_of(source)
        folder = str(fetch(str(model.path), model.revision, allow_pickle=False))
        self.source = source
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        logger.info("sampling %s documents from %s on %s", f"{source.max_documents:,}", folder, self.device.type)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.model = load_pretrained(model, dtype).to(self.device).eval()
        configs = (self.model.generation_config, self.model.config)
        ends = [self.tokenizer.eos_token_id, *(end for config in configs for end in _token_ids(config.eos_token_id))]
        self.ends = sorted({end for end in ends if end is not None})
        starts = [self.tokenizer.bos_token_id, *(config.bos_token_id for config in configs), *ends]
        if not self.ends:
            raise UserError(f"{source.name}: the model in {folder} has no token that ends a text (eos)")
        self.start: int = next(start for start in starts if start is not None)

    def sample(self, number: int) -> dict[str, Any]:
        """A chunk: its documents, some of them empty, and how many tokens they have.

        Every token can be drawn: no top-k and no top-p.
        """
        import torch
        from transformers import GenerationConfig

        settings = GenerationConfig(
            do_sample=True,
            temperature=self.source.temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.source.document_tokens,
            bos_token_id=self.start,
            eos_token_id=self.ends,
            pad_token_id=self.ends[0],
        )
        self.model.generation_config = GenerationConfig()  # a folder's own would fill in what is not set here
        start = torch.full((CHUNK_DOCUMENTS, 1), self.start, device=self.device)
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), torch.inference_mode():
                torch.manual_seed(int(fingerprint([self.source.generation_seed, number])[:15], 16))
                generated = self.model.generate(
                    start, attention_mask=torch.ones_like(start), generation_config=settings, use_cache=True
                )[:, 1:]
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"{self.source.name}: {CHUNK_DOCUMENTS} documents of {self.source.document_tokens} tokens do not fit "
                "into the device's memory with the model: lower generic.document_tokens"
            ) from error
        texts_tokens = [_tokens_before_end(row, self.ends) for row in generated.tolist()]
        texts = self.tokenizer.batch_decode(texts_tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return {"documents": texts, "tokens": sum(map(len, texts_tokens))}


class _Progress:
    """Documents, tokens a second and time left: a bar on a terminal, elsewhere a line every half minute."""

    def __init__(self, documents: int) -> None:
        from tqdm import tqdm

        self.bar = tqdm(total=documents, desc="sampling", unit=" documents", disable=None, leave=False)
        self.documents = documents
        self.done = 0
        self.sampled = 0  # documents that this process sampled
        self.tokens = 0  # of these documents
        self.began = self.shown = time.monotonic()

    def add(self, documents: int, tokens: int) -> None:
        """Count `documents` more. `tokens`: how many were sampled for them now; 0 where they were there before."""
        self.done += documents
        self.tokens += tokens
        self.sampled += documents if tokens else 0
        now = time.monotonic()
        rate = self.tokens / max(now - self.began, 1e-9)
        self.bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        self.bar.update(documents)
        if self.bar.disable and self.sampled and now - self.shown > SECONDS_BETWEEN_LINES:
            self.shown = now
            seconds_left = (self.documents - self.done) * (now - self.began) / self.sampled
            logger.info(
                "sampled %s of %s documents, %s tokens/s, %d:%02d left",
                *(f"{number:,.0f}" for number in (self.done, self.documents, rate)),
                *divmod(int(seconds_left), 60),
            )

    def close(self) -> None:
        self.bar.close()


def _token_ids(token: int | list[int] | None) -> list[int | None]:
    return list(token) if isinstance(token, list) else [token]


def _tokens_before_end(row: list[int], ends: list[int]) -> list[int]:
    """The tokens before the first that ends a text; what follows is padding."""
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row))]
