"""What a loaded model answers to a batch of texts: tensors and arrays, no data frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from histocc.dataloader.encoding import LanguagePrefixes, codepoints_of, encode_texts
from histocc.decoding.blocks import block_probabilities
from histocc.decoding.flat import flat_logits, pooled_encodings
from histocc.decoding.full_search import full_search
from histocc.decoding.greedy import Decoded, greedy_decode
from histocc.decoding.memory import DecoderMemory
from histocc.decoding.top_k import greedy_top_k
from histocc.decoding.trie import CodeTrie
from histocc.errors import UsageError
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.transliteration import to_ascii

Autocast = Callable[[], AbstractContextManager[Any]]

# CANINE joins four characters to one position of its deep encoder; the flat head needs no more padding than that.
_WIDTH_STEP = 4
# Different blocks of which it is remembered what they spell.
_MOST_BLOCKS = 2**16


class DecodedCodes(NamedTuple):
    """What a decoder wrote for some texts.

    Parameters
    ----------
    codes
        The codes of each text, as its formatter spells them, in the order in which they came; an empty block is none.
    confidence
        Float64 [B], the product of the probabilities of all tokens; or see `Predictor.greedy`.
    tokens, probabilities
        Int64 and float32 [B, T], see `Decoded`.
    """

    codes: list[tuple[str, ...]]
    confidence: np.ndarray
    tokens: np.ndarray
    probabilities: np.ndarray


class Predictor:
    """Answers for batches of texts, each in its language; the answers to texts do not depend on each other.

    Parameters
    ----------
    loaded
        The model.
    autocast
        Context to compute in.
    """

    def __init__(self, loaded: LoadedModel, autocast: Autocast = nullcontext) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.formatter = loaded.system.formatter
        self.device = next(loaded.model.parameters()).device
        self._autocast = autocast
        self._decode_block = lru_cache(_MOST_BLOCKS)(
            lambda tokens: self.formatter.decode_block(np.frombuffer(tokens, dtype=np.int64))
        )

    def clean(self, text: str) -> str:
        """A text as the model was trained with it; the other methods take cleaned texts."""
        if self.loaded.settings.lowercase:
            text = text.lower()
        return to_ascii(text) if self.loaded.settings.ascii_only else text

    @torch.inference_mode()
    def embeddings(self, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
        """The pooled encodings, float32 [B, hidden]."""
        with self._autocast():
            return pooled_encodings(self.model, *self._encode(texts, languages, trimmed=True)).float()

    @torch.inference_mode()
    def flat(self, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
        """The logits of the flat head, float32 [B, C]; their sigmoid is the probability of a class."""
        with self._autocast():
            return flat_logits(self.model, pooled_encodings(self.model, *self._encode(texts, languages, trimmed=True)))

    @torch.inference_mode()
    def full(self, texts: Sequence[str], languages: Sequence[str]) -> Tensor:
        """The probability of every code of the key as the first one, float32 [B, C]."""
        with self._autocast():
            return full_search(self._memory(texts, languages), self._trie)

    @torch.inference_mode()
    def greedy(self, texts: Sequence[str], languages: Sequence[str], *, order_invariant: bool = True) -> DecodedCodes:
        """The codes that the decoder writes.

        With `order_invariant` the confidence of a text with two or more codes is the probability that one of them is
        the first, whichever; it does not depend on the order in which they came.
        """
        with self._autocast():
            memory = self._memory(texts, languages)
            return self._read(greedy_decode(memory, self.formatter.max_seq_len), memory if order_invariant else None)

    @torch.inference_mode()
    def greedy_top_k(
        self, texts: Sequence[str], languages: Sequence[str], rounds: int, *, order_invariant: bool = False
    ) -> list[DecodedCodes]:
        """What the decoder writes in each of several rounds, see `greedy_top_k`."""
        with self._autocast():
            memory = self._memory(texts, languages)
            decoded = greedy_top_k(memory, self.formatter.max_seq_len, rounds)
            return [self._read(Decoded(*each), memory if order_invariant else None) for each in zip(*decoded)]

    def check_full(self) -> None:
        """Raise UsageError where the codes for a full search are not known, or one cannot be spelt."""
        self._trie  # noqa: B018

    def _encode(self, texts: Sequence[str], languages: Sequence[str], trimmed: bool = False) -> tuple[Tensor, Tensor]:
        """Ids and mask of texts, int64 [B, L], padded to the model's length, or as far as the texts need."""
        names = list(dict.fromkeys(languages))
        number = {name: i for i, name in enumerate(names)}
        of_text = np.array([number[name] for name in languages], dtype=np.int64)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        prefixes = LanguagePrefixes(names)
        width = self.loaded.settings.max_len
        if trimmed:
            needed = int((prefixes.lengths[of_text] + lengths + 1).max())
            width = min(width, -(-needed // _WIDTH_STEP) * _WIDTH_STEP)
        ids, mask = encode_texts(codepoints_of("".join(texts)), lengths, of_text, prefixes, width)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def _memory(self, texts: Sequence[str], languages: Sequence[str]) -> DecoderMemory:
        return DecoderMemory.of(self.model, *self._encode(texts, languages))

    @cached_property
    def _trie(self) -> CodeTrie:
        codes, source = self.loaded.system.codes, self.loaded.source
        if codes is None:
            raise UsageError(
                f"{source} has no key of all codes, which a full search needs: put a key.csv with the columns "
                f"system_code and code beside it, or choose the method greedy"
            )
        try:
            return CodeTrie(np.stack([self.formatter.encode_block(code) for code in codes]))
        except ValueError as error:
            raise UsageError(f"{source}: a code of the key cannot be searched for: {error}") from error

    def _read(self, decoded: Decoded, memory: DecoderMemory | None) -> DecodedCodes:
        """The codes in tokens [B, T]; with the memory, confidences that do not depend on their order."""
        tokens, probabilities = decoded.tokens.cpu().numpy(), decoded.probabilities.cpu().numpy()
        codes = [tuple(code for code in self._blocks(row) if code) for row in tokens]
        confidence = probabilities.prod(axis=1, dtype=np.float64)
        rows = [row for row, found in enumerate(codes) if len(found) > 1]
        if memory is not None and rows:
            confidence[rows] = self._any_first(memory, rows, [codes[row] for row in rows], tokens[rows])
        return DecodedCodes(codes, confidence, tokens, probabilities)

    def _blocks(self, tokens: np.ndarray) -> list[str | None]:
        """What the K blocks of a token sequence [T] spell; None or '' where a block is empty."""
        blocks = np.ascontiguousarray(tokens[1:-1]).reshape(self.formatter.max_num_codes, self.formatter.block_size)
        return [self._decode_block(block.tobytes()) for block in blocks]

    def _any_first(
        self, memory: DecoderMemory, rows: list[int], codes: list[tuple[str, ...]], tokens: np.ndarray
    ) -> np.ndarray:
        """The probability that any of its codes is the first, for some rows of the memory, float64."""
        distinct = [list(dict.fromkeys(each)) for each in codes]
        blocks = np.zeros((len(rows), max(map(len, distinct)), self.formatter.block_size), dtype=np.int64)
        counts = np.zeros(blocks.shape[:2])
        for i, each in enumerate(distinct):
            for j, code in enumerate(each):
                blocks[i, j] = self._spelling(code, tokens[i])
                counts[i, j] = 1
        some = memory.rows(torch.tensor(rows, device=self.device))
        first = block_probabilities(some, torch.from_numpy(blocks).to(self.device))
        return (first.cpu().numpy() * counts).sum(axis=1)

    def _spelling(self, code: str, tokens: np.ndarray) -> np.ndarray:
        """The tokens of a code, [S]; those that the decoder wrote where they spell more characters than fit."""
        try:
            return self.formatter.encode_block(code)
        except ValueError:
            size, place = self.formatter.block_size, self._blocks(tokens).index(code)
            return tokens[1 + place * size : 1 + (place + 1) * size]


def best_classes(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of scores [B, C] and their classes, both [B, k], best first; of equals the first class."""
    best, classes = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :k], classes[:, :k]
