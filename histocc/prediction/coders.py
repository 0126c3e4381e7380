"""A model that was loaded to be used, and the methods by which it codes texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from histocc.dataloader.encoding import LanguagePrefixes, codepoints_of, encode_texts
from histocc.errors import UsageError
from histocc.files import run_folder
from histocc.formatter import CodingSystem
from histocc.prediction.blocks import block_probabilities
from histocc.prediction.coder import Coded
from histocc.prediction.flat import flat_logits, pooled_encodings
from histocc.prediction.full_search import full_search
from histocc.prediction.greedy import Decoded
from histocc.prediction.memory import DecoderMemory
from histocc.prediction.threshold_table import ALL_LANGUAGES, read_thresholds
from histocc.prediction.top_k import greedy_top_k
from histocc.prediction.trie import CodeTrie
from histocc.stored_model import ModelSettings

METHODS = ("flat", "greedy", "full")
# The codes of a text share the probability of its first block, so that full search keeps what has a quarter of it.
DEFAULT_THRESHOLDS = {"flat": 0.5, "full": 0.25}
# CANINE joins four characters to one position of its deep encoder; the flat head needs no more padding than that.
_WIDTH_STEP = 4

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class LoadedModel:
    """A model that was loaded to be used.

    Parameters
    ----------
    model
        In evaluation mode, on the device that computes.
    system
        Its coding system, with its codes.
    settings
        What it is made of, and how text comes into it.
    languages
        Those that it was trained on; None where that is not known.
    folder
        The folder it came from, for what stands beside a model; None for one from a hub.
    identity
        Tells one model from another, plain values.
    entries
        What else its file holds.
    """

    model: nn.Module
    system: CodingSystem
    settings: ModelSettings
    languages: frozenset[str] | None
    folder: Path | None
    identity: Any
    entries: Mapping[str, Any]

    @property
    def methods(self) -> tuple[str, ...]:
        """What it can answer by, the one to choose first."""
        return {"flat": ("flat",), "mixer": ("greedy", "flat", "full"), "seq2seq": ("greedy", "full")}[
            self.settings.kind
        ]

    def coder(
        self,
        method: str | None = None,
        *,
        threshold: float | None = None,
        alternatives: int = 1,
        autocast: Autocast = nullcontext,
    ) -> ModelCoder:
        """A coder by one of the model's methods, by default the first.

        Parameters
        ----------
        method
            One of `METHODS`.
        threshold
            Codes with less confidence are left out; by default ``thresholds.csv`` beside the model decides, and else
            `DEFAULT_THRESHOLDS`.
        alternatives
            Predictions for each text, where the method is 'greedy'.
        autocast
            Context to compute in.

        Raises
        ------
        UsageError
            The model cannot answer by this method, or the thresholds beside it are no table.
        """
        method = self.methods[0] if method is None else method
        if method not in self.methods:
            has = {"flat": "a flat head alone", "seq2seq": "a decoder alone"}.get(self.settings.kind, "")
            raise UsageError(
                f"the model has {has}, which cannot answer by the method {method}: choose {' or '.join(self.methods)} "
                "(--method)"
            )
        if alternatives > 1 and method != "greedy":
            raise UsageError(f"alternatives (--top-k) are for the method greedy; {method} ranks single codes")
        thresholds: dict[str, float] = {}
        if threshold is not None:
            thresholds = {ALL_LANGUAGES: threshold}
        elif self.folder is not None:
            thresholds = read_thresholds(self.folder / run_folder.THRESHOLDS, method)
        return ModelCoder(self, method, thresholds, alternatives, autocast)


class ModelCoder:
    """Codes texts with a model; see `Coder`.

    Parameters
    ----------
    loaded
        The model.
    method
        'flat', 'greedy' or 'full'.
    thresholds
        By language, and for all others under 'all'; where neither is there, the method's default.
    alternatives
        Predictions for each text.
    autocast
        Context to compute in.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        method: str,
        thresholds: Mapping[str, float],
        alternatives: int = 1,
        autocast: Autocast = nullcontext,
    ) -> None:
        self.loaded = loaded
        self.method = method
        self.alternatives = alternatives
        self.max_codes = loaded.system.formatter.max_num_codes
        self._thresholds = thresholds
        self._autocast = autocast
        self._device = next(loaded.model.parameters()).device

    @property
    def has_decoder(self) -> bool:
        """Whether the model could answer by its decoder."""
        return "greedy" in self.loaded.methods

    @property
    def identity(self) -> Any:
        """Tells coders with other predictions apart, plain values."""
        with self._autocast():
            mixed = torch.is_autocast_enabled(self._device.type)
            dtype = str(torch.get_autocast_dtype(self._device.type)) if mixed else None
        return {"method": self.method, "alternatives": self.alternatives, "mixed_precision": dtype}

    def above_thresholds(self, coded: Coded, languages: Sequence[str]) -> Coded:
        """Predictions without the codes that are not sure enough, each text judged by its language."""
        # Below every probability: a product of many can be exactly 0.
        default = self._thresholds.get(ALL_LANGUAGES, DEFAULT_THRESHOLDS.get(self.method, -1.0))
        return coded.keep_above(np.array([self._thresholds.get(language, default) for language in languages]))

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], languages: Sequence[str]) -> Coded:
        """Predictions for texts, without thresholds; they do not depend on each other."""
        with self._autocast():
            if self.method == "flat":
                ids, mask = self._encode(texts, languages, trimmed=True)
                model = self.loaded.model
                return self._best_classes(flat_logits(model, pooled_encodings(model, ids, mask)).sigmoid())
            memory = DecoderMemory.of(self.loaded.model, *self._encode(texts, languages))
            if self.method == "full":
                return self._best_classes(full_search(memory, self._trie))
            decoded = greedy_top_k(memory, self.loaded.system.formatter.max_seq_len, self.alternatives)
            return self._spelt(decoded, memory)

    def _encode(self, texts: Sequence[str], languages: Sequence[str], trimmed: bool = False) -> tuple[Tensor, Tensor]:
        """Ids and mask of texts, int64 [B, L], padded to the model's length, or as far as the texts need."""
        names = list(dict.fromkeys(languages))
        number = {name: i for i, name in enumerate(names)}
        of_text = np.array([number[name] for name in languages])
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        prefixes = LanguagePrefixes(names)
        width = self.loaded.settings.max_len
        if trimmed:
            needed = int((prefixes.lengths[of_text] + lengths + 1).max())
            width = min(width, -(-needed // _WIDTH_STEP) * _WIDTH_STEP)
        ids, mask = encode_texts(codepoints_of("".join(texts)), lengths, of_text, prefixes, width)
        return torch.from_numpy(ids).to(self._device), torch.from_numpy(mask).to(self._device)

    @cached_property
    def _codes(self) -> np.ndarray:
        """The code of each class."""
        codes = np.empty(len(self.loaded.system.codes), dtype=object)
        codes[:] = self.loaded.system.codes
        return codes

    @cached_property
    def _trie(self) -> CodeTrie:
        encode = self.loaded.system.formatter.encode_block
        return CodeTrie(np.stack([encode(code) for code in self._codes]))

    def _best_classes(self, probabilities: Tensor) -> Coded:
        """The most probable classes of each text, from probabilities [B, C]."""
        number = min(self.max_codes, probabilities.size(1))
        best, classes = probabilities.float().topk(number, dim=1)
        shape = (len(best), 1, self.max_codes)
        codes, confidence = np.full(shape, "", dtype=object), np.full(shape, np.nan)
        codes[:, 0, :number] = self._codes[classes.cpu().numpy()]
        confidence[:, 0, :number] = best.cpu().numpy()
        # A class of its own for texts without a code, in keys of older runs.
        confidence[codes == ""] = np.nan
        return Coded(codes, confidence, confidence[:, :, 0])

    def _spelt(self, decoded: Decoded, memory: DecoderMemory) -> Coded:
        """The codes that tokens [A, B, T] spell, each once."""
        formatter = self.loaded.system.formatter
        size, places = formatter.block_size, self.max_codes
        alternatives, rows, _ = decoded.tokens.shape
        blocks = decoded.tokens[:, :, 1 : 1 + places * size].reshape(alternatives, rows, places, size)
        distinct, number_of = np.unique(blocks.reshape(-1, size).cpu().numpy(), axis=0, return_inverse=True)
        spelt = [formatter.decode_block(block) or "" for block in distinct]
        of_block = np.array(spelt, dtype=object)[number_of.reshape(-1)].reshape(alternatives, rows, places)
        codes = np.full((rows, alternatives, places), "", dtype=object)
        # Where the code of each place was spelt.
        place_of = np.zeros((rows, alternatives, places), dtype=np.int64)
        for a in range(alternatives):
            for b, row in enumerate(of_block[a].tolist()):
                found = {code: place for place, code in reversed(list(enumerate(row))) if code}
                for k, place in enumerate(sorted(found.values())):
                    codes[b, a, k], place_of[b, a, k] = row[place], place
        confidence = decoded.probabilities.double().prod(-1).T.cpu().numpy().copy()
        for a in range(alternatives):
            several = np.flatnonzero((codes[:, a] != "").sum(axis=1) > 1)
            if len(several):
                there = torch.from_numpy(several).to(self._device)
                places_here = torch.from_numpy(place_of[several, a]).to(self._device)
                own = blocks[a, there].gather(1, places_here[:, :, None].expand(-1, -1, size))
                # The probability of a sequence is that of one order of its codes. That the first block spells any of
                # them does not depend on the order.
                found = block_probabilities(memory.rows(there), own).cpu().numpy()
                confidence[several, a] = np.where(codes[several, a] != "", found, 0.0).sum(axis=1)
        return Coded(codes, np.where(codes != "", confidence[:, :, None], np.nan), confidence)


def identity_of(path: str | os.PathLike[str]) -> list[Any]:
    """What tells a file of weights from another: its place, size and time."""
    status = os.stat(path)
    return [str(Path(path).absolute()), status.st_size, status.st_mtime_ns]
