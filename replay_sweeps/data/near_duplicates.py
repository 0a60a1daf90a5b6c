"""Exact and near duplicates: MinHash signatures of word 5-grams, compared through locality-sensitive hashing.

Signatures and hashes are held in memory (4 to 6 kB for each document, measured), texts never are.
"""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Signatures = NDArray[np.uint32]  # [documents, PERMUTATIONS]

PERMUTATIONS = 128
BANDS = 32  # of 4 values each: a pair at the threshold is compared with probability 1 - 3e-8
THRESHOLD = 0.8  # Jaccard similarity of the sets of word 5-grams
SHINGLE_WORDS = 5
SEED = 42  # the only seed that every version of the library accepts in its deduplicator

# Scripts without spaces between words count by character.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def method_version() -> str:
    """What decides which documents count as duplicates, the library's version included."""
    return f"1:{PERMUTATIONS}:{BANDS}:{THRESHOLD}:{SHINGLE_WORDS}:rensa-{importlib.metadata.version('rensa')}"


def text_hash(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in case and spacing only."""
    return hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=16).digest()


def shingles(text: str) -> list[str]:
    """The text's word 5-grams without case and punctuation; all its words as one when there are fewer.

    So a text of few words is a near duplicate only of a text with the same words; one with no words at all counts
    character by character.
    """
    words = _WORDS.findall(text.lower()) or list("".join(text.split()))
    if len(words) <= SHINGLE_WORDS:
        return [" ".join(words)]
    return list(map(" ".join, zip(*(words[skip:] for skip in range(SHINGLE_WORDS)), strict=False)))


def sketch(texts: list[str]) -> list[tuple[bytes, Any]]:
    """For each text its hash and its MinHash (a `rensa.RMinHash`)."""
    from rensa import RMinHash

    sketches = []
    for text in texts:
        minhash = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
        minhash.update(shingles(text))
        sketches.append((text_hash(text), minhash))
    return sketches


class Deduplicator:
    """Decides for each document in turn whether it repeats an earlier one, and counts those that do."""

    def __init__(self) -> None:
        from rensa import RMinHashDeduplicator

        self.exact = 0  # documents equal to an earlier one, apart from case and spacing
        self.near = 0  # other documents with a similarity of at least THRESHOLD to an earlier one
        self._hashes: set[bytes] = set()
        self._near = RMinHashDeduplicator(THRESHOLD, PERMUTATIONS, True, BANDS)

    def is_new(self, text_hash: bytes, minhash: Any) -> bool:
        """Whether no earlier document was the same or nearly so."""
        if text_hash in self._hashes:
            self.exact += 1
            return False
        self._hashes.add(text_hash)
        if not self._near.add(text_hash.hex(), minhash):
            self.near += 1
            return False
        return True


def _band_keys(signatures: Signatures, band: int) -> NDArray[np.uint64]:
    """One 64-bit number for each signature's values in a band; equal values give equal numbers."""
    width = PERMUTATIONS // BANDS
    keys = np.full(len(signatures), band, dtype=np.uint64)
    for column in range(band * width, (band + 1) * width):
        keys = (keys ^ signatures[:, column].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _blocks(signatures: Signatures, size: int = 65_536) -> Iterator[Signatures]:
    for start in range(0, len(signatures), size):
        yield np.asarray(signatures[start : start + size])


def find_near_duplicates(candidates: Signatures, corpora: Iterable[Signatures]) -> NDArray[np.bool_]:
    """Which of `candidates` are near duplicates of any document of `corpora`; [candidates].

    Every corpus is read in blocks, so it may be a memory map larger than memory.
    """
    is_duplicate = np.zeros(len(candidates), dtype=np.bool_)
    if not len(candidates):
        return is_duplicate
    bands = []
    for band in range(BANDS):
        keys = _band_keys(candidates, band)
        order = np.argsort(keys, kind="stable")
        bands.append((keys[order], order))
    for corpus in corpora:
        for block in _blocks(corpus):
            for band, (keys, order) in enumerate(bands):
                _mark_similar(is_duplicate, candidates, block, keys, order, _band_keys(block, band))
    return is_duplicate


def _mark_similar(
    is_duplicate: NDArray[np.bool_],
    candidates: Signatures,
    block: Signatures,
    keys: NDArray[np.uint64],
    order: NDArray[np.intp],
    block_keys: NDArray[np.uint64],
) -> None:
    """Mark the candidates that share a band with a signature of `block` and are as similar as THRESHOLD to it."""
    first = np.searchsorted(keys, block_keys, side="left")
    last = np.searchsorted(keys, block_keys, side="right")
    for place in np.flatnonzero(last > first):
        matches = order[first[place] : last[place]]
        matches = matches[~is_duplicate[matches]]
        if len(matches):
            equal = (candidates[matches] == block[place]).mean(axis=1)
            is_duplicate[matches[equal >= THRESHOLD]] = True
