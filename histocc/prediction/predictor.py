"""A loaded model on a device, asked for many texts at a time: arrays out, no data frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from histocc.errors import UsageError
from histocc.prediction.blocks import block_probabilities
from histocc.prediction.flat import flat_logits, pooled_encodings
from histocc.prediction.full_search import full_search
from histocc.prediction.greedy import Decoded, greedy_decode
from histocc.prediction.loading import LoadedModel
from histocc.prediction.memory import DecoderMemory
from histocc.prediction.texts import Texts
from histocc.prediction.top_k import greedy_top_k
from histocc.prediction.trie import CodeTrie
from histocc.processes.distributed import pick_device
from histocc.training.precision import Precision

T = TypeVar("T")

# In arrays of classes.
NO_CODE, UNKNOWN_CODE = -1, -2
# Lengths to which texts are padded where padding has no effect, so that few shapes occur.
_WIDTH_STEP = 4
# Different blocks of which it is remembered what they spell.
_MOST_BLOCKS = 2**16

FLAT, GREEDY, GREEDY_TOP_K, FULL = "flat", "greedy", "greedy-topk", "full"
METHODS = {
    "flat": (FLAT,),
    "seq2seq": (GREEDY, FULL),
    "mixer": (FLAT, GREEDY, GREEDY_TOP_K, FULL),
}


class DecodedCodes(NamedTuple):
    """What a decoder wrote for some texts.

    Parameters
    ----------
    codes
        The codes of each text, as its formatter spells them; an empty block is no code.
    classes
        Their class indices, int64 [b, K]: `NO_CODE` where there is no further code, `UNKNOWN_CODE` for one that the
        model's key lacks.
    confidence
        Float32 [b], the product of the probabilities of all tokens; or see `Predictor.greedy`.
    tokens, probabilities
        Int64 and float32 [b, T], see `Decoded`.
    """

    codes: list[tuple[str, ...]]
    classes: np.ndarray
    confidence: np.ndarray
    tokens: np.ndarray
    probabilities: np.ndarray


class BestClasses(NamedTuple):
    """The most probable classes of some texts, best first.

    Parameters
    ----------
    classes
        Int64 [b, k].
    probabilities
        Float32 [b, k].
    """

    classes: np.ndarray
    probabilities: np.ndarray


class Predictor:
    """Runs a model over texts in batches, the longest first, so that what does not fit in memory shows at the start.

    All methods take cleaned texts (`clean_text`) and a language for each, best each pair once, and give the positions
    of the texts of each batch, int64 [b], with the answers for them. Neither the size of the batches nor their order
    changes the answers, but for rounding. Where a batch does not fit into the device's memory, smaller ones are tried.

    Parameters
    ----------
    loaded
        The model, which is moved to the device.
    device
        Where it runs; a GPU where there is one by default.
    batch_size
        Texts at a time; it becomes less where so many do not fit.
    amp
        Mixed precision, bfloat16 where the hardware has it.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        device: torch.device | str | None = None,
        batch_size: int = 256,
        *,
        amp: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, but at least 1 text has to run at a time")
        self.loaded = loaded
        self.device = pick_device() if device is None else torch.device(device)
        self.batch_size = batch_size
        self.model = loaded.model.to(self.device).eval()
        self.formatter = loaded.system.formatter
        self.key = loaded.system.key or {}
        self._precision = Precision(self.device, use_amp=amp)
        self._decode_block = lru_cache(_MOST_BLOCKS)(
            lambda tokens: self.formatter.decode_block(np.frombuffer(tokens, dtype=np.int64))
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the model has, of 'flat', 'greedy', 'greedy-topk' and 'full'."""
        return METHODS[self.loaded.kind]

    def check(self, method: str) -> None:
        """Raise UsageError where the model does not have a method, or lacks the codes for it."""
        if method not in self.methods:
            kinds = {"flat": "a flat head alone", "seq2seq": "a decoder alone", "mixer": "decoder and flat head"}
            raise UsageError(
                f"{self.loaded.source} has {kinds[self.loaded.kind]} and cannot predict by {method!r}: "
                f"choose {' or '.join(map(repr, self.methods))}"
            )
        if method == FULL:
            self._trie  # noqa: B018

    def embeddings(self, texts: Sequence[str], languages: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The pooled encodings, float32 [b, hidden]."""
        return self._run(texts, languages, lambda *batch: self._pool(*batch).float().cpu().numpy(), cut_padding=True)

    def flat(self, texts: Sequence[str], languages: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The logits of the flat head, float32 [b, C]; their sigmoid is the probability of a class."""
        self.check(FLAT)
        return self._run(texts, languages, lambda *batch: self._flat(*batch).cpu().numpy(), cut_padding=True)

    def flat_best(
        self, texts: Sequence[str], languages: Sequence[str], k: int
    ) -> Iterator[tuple[np.ndarray, BestClasses]]:
        """The k most probable classes of the flat head; of equals the first."""
        self.check(FLAT)
        return self._run(texts, languages, lambda *batch: _best(self._flat(*batch), k, torch.sigmoid), cut_padding=True)

    def full(self, texts: Sequence[str], languages: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The probability of every code of the key as the first one, float32 [b, C]."""
        self.check(FULL)
        return self._run(texts, languages, lambda *batch: self._full(*batch).cpu().numpy())

    def full_best(
        self, texts: Sequence[str], languages: Sequence[str], k: int
    ) -> Iterator[tuple[np.ndarray, BestClasses]]:
        """The k most probable codes of the key; of equals the first."""
        self.check(FULL)
        return self._run(texts, languages, lambda *batch: _best(self._full(*batch), k))

    def greedy(
        self, texts: Sequence[str], languages: Sequence[str], *, order_invariant: bool = True
    ) -> Iterator[tuple[np.ndarray, DecodedCodes]]:
        """The codes that the decoder writes.

        With `order_invariant` the confidence of a text with two or more codes is the probability that one of them is
        the first: it does not depend on the order in which they came.
        """
        self.check(GREEDY)

        def answer(input_ids: Tensor, attention_mask: Tensor) -> DecodedCodes:
            memory = self._memory(input_ids, attention_mask)
            decoded = self._read(greedy_decode(memory, self.formatter.max_seq_len))
            if order_invariant:
                self._make_order_invariant(memory, decoded)
            return decoded

        return self._run(texts, languages, answer)

    def greedy_top_k(
        self, texts: Sequence[str], languages: Sequence[str], rounds: int
    ) -> Iterator[tuple[np.ndarray, list[DecodedCodes]]]:
        """What the decoder writes in several rounds, see `greedy_top_k`; a list of the rounds."""
        self.check(GREEDY_TOP_K)

        def answer(input_ids: Tensor, attention_mask: Tensor) -> list[DecodedCodes]:
            memory = self._memory(input_ids, attention_mask)
            decoded = greedy_top_k(memory, self.formatter.max_seq_len, rounds)
            return [self._read(Decoded(*each)) for each in zip(*decoded)]

        return self._run(texts, languages, answer)

    def _run(
        self,
        texts: Sequence[str],
        languages: Sequence[str],
        answer: Callable[[Tensor, Tensor], T],
        *,
        cut_padding: bool = False,
    ) -> Iterator[tuple[np.ndarray, T]]:
        encoded = Texts(texts, languages, self.loaded.max_len)
        order = np.argsort(-encoded.lengths, kind="stable")
        start = 0
        while start < len(order):
            rows = order[start : start + self.batch_size]
            width = None
            if cut_padding:
                width = min(encoded.max_len, -(-int(encoded.lengths[rows[0]]) // _WIDTH_STEP) * _WIDTH_STEP)
            batch = [torch.from_numpy(array).to(self.device) for array in encoded.encode(rows, width)]
            try:
                with torch.inference_mode(), self._precision.autocast():
                    answered = answer(*batch)
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                answered = None
            if answered is None:  # outside the handler, which holds on to what did not fit
                self.batch_size = (len(rows) + 1) // 2
                del batch
                torch.cuda.empty_cache()
                continue
            yield rows, answered
            start += len(rows)

    def _pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return pooled_encodings(self.model, input_ids, attention_mask)

    def _flat(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return flat_logits(self.model, self._pool(input_ids, attention_mask))

    def _memory(self, input_ids: Tensor, attention_mask: Tensor) -> DecoderMemory:
        return DecoderMemory.of(self.model, input_ids, attention_mask)

    def _full(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return full_search(self._memory(input_ids, attention_mask), self._trie)

    @cached_property
    def _trie(self) -> CodeTrie:
        codes = self.loaded.system.codes
        if codes is None:
            raise UsageError(
                f"{self.loaded.source} has no key of all codes, which a full search needs: put a key.csv with the "
                f"columns system_code and code beside it, or predict by 'greedy'"
            )
        try:
            return CodeTrie(np.stack([self.formatter.encode_block(code) for code in codes]))
        except ValueError as error:
            raise UsageError(f"{self.loaded.source}: a code of the key cannot be searched for: {error}") from error

    def _read(self, decoded: Decoded) -> DecodedCodes:
        tokens, probabilities = decoded.tokens.cpu().numpy(), decoded.probabilities.cpu().numpy()
        codes = [tuple(code for code in self._blocks(row) if code) for row in tokens]
        classes = np.full((len(codes), self.formatter.max_num_codes), NO_CODE, dtype=np.int64)
        for row, found in zip(classes, codes):
            row[: len(found)] = [self.key.get(code, UNKNOWN_CODE) for code in found]
        return DecodedCodes(codes, classes, probabilities.prod(axis=1), tokens, probabilities)

    def _blocks(self, tokens: np.ndarray) -> list[str | None]:
        """What the K blocks of a token sequence [T] spell; None or '' where a block is empty."""
        blocks = np.ascontiguousarray(tokens[1:-1]).reshape(self.formatter.max_num_codes, self.formatter.block_size)
        return [self._decode_block(block.tobytes()) for block in blocks]

    def _make_order_invariant(self, memory: DecoderMemory, decoded: DecodedCodes) -> None:
        """Replace the confidence of texts with two or more codes, in place."""
        rows = [row for row, codes in enumerate(decoded.codes) if len(codes) > 1]
        if not rows:
            return
        distinct = [list(dict.fromkeys(decoded.codes[row])) for row in rows]
        blocks = np.zeros((len(rows), max(map(len, distinct)), self.formatter.block_size), dtype=np.int64)
        counts = np.zeros(blocks.shape[:2], dtype=np.float32)
        for i, (row, codes) in enumerate(zip(rows, distinct)):
            for j, code in enumerate(codes):
                blocks[i, j] = self._spelling(code, decoded.tokens[row])
                counts[i, j] = 1
        some = memory.rows(torch.tensor(rows, device=self.device))
        first = block_probabilities(some, torch.from_numpy(blocks).to(self.device)).cpu().numpy()
        decoded.confidence[rows] = (first * counts).sum(axis=1)

    def _spelling(self, code: str, tokens: np.ndarray) -> np.ndarray:
        """The tokens of a code, [S]; as the decoder wrote it where the alphabet has no other spelling that fits."""
        try:
            return self.formatter.encode_block(code)
        except ValueError:
            block = self._blocks(tokens).index(code)
            size = self.formatter.block_size
            return tokens[1 + block * size : 1 + (block + 1) * size]


def _best(scores: Tensor, k: int, to_probability: Callable[[Tensor], Tensor] = lambda scores: scores) -> BestClasses:
    # A stable sort, so that equal scores come in the order of the classes everywhere.
    best, classes = scores.sort(dim=1, descending=True, stable=True)
    return BestClasses(classes[:, :k].cpu().numpy(), to_probability(best[:, :k]).cpu().numpy())
