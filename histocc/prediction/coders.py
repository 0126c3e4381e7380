"""The methods by which a loaded model codes texts for the commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from histocc.errors import UsageError
from histocc.prediction.coder import Coded
from histocc.prediction.loaded import FLAT, FULL, GREEDY, LoadedModel
from histocc.prediction.predictor import Autocast, DecodedCodes, Predictor, best_classes
from histocc.prediction.threshold_table import ALL_LANGUAGES, StoredThresholds, read_thresholds
from histocc.prediction.thresholds import OTHER_LANGUAGES, THRESHOLD_LOOKUP

METHODS = (FLAT, GREEDY, FULL)
# The codes of a text share the probability of its first block, so that full search keeps what has a quarter of it.
DEFAULT_THRESHOLDS = {FLAT: 0.5, FULL: 0.25}


def make_coder(
    loaded: LoadedModel,
    method: str | None = None,
    *,
    threshold: float | None = None,
    alternatives: int = 1,
    ranked: int = 0,
    autocast: Autocast = nullcontext,
) -> ModelCoder:
    """A coder by one of a model's methods, by default the first.

    Parameters
    ----------
    loaded
        The model.
    method
        One of `METHODS`.
    threshold
        Codes with less confidence are left out; by default ``thresholds.csv`` beside the model decides, and else
        those that the published models have for the flat head by language, or `DEFAULT_THRESHOLDS`.
    alternatives
        Predictions for each text, where the method is 'greedy'.
    ranked
        Codes of each text at least, where the method ranks them; by default as many as a text may have.
    autocast
        Context to compute in.

    Raises
    ------
    UsageError
        The model cannot answer by this method, or the thresholds beside it are no table.
    """
    method = loaded.methods[0] if method is None else method
    loaded.check(method, "--method")
    if alternatives > 1 and method != GREEDY:
        raise UsageError(f"alternatives (--top-k) are for the method greedy; {method} ranks single codes")
    stored = StoredThresholds({})
    if threshold is None and loaded.thresholds_file is not None:
        stored = read_thresholds(loaded.thresholds_file, method, loaded.weights_mark)
    usual: dict[str, float] = {}
    if threshold is not None:
        usual = {ALL_LANGUAGES: threshold}
    elif method == FLAT and loaded.published:
        usual = {ALL_LANGUAGES: OTHER_LANGUAGES, **THRESHOLD_LOOKUP}
    return ModelCoder(loaded, method, usual, alternatives, autocast, stored, ranked)


class ModelCoder:
    """Codes texts with a model; see `Coder`.

    Parameters
    ----------
    loaded
        The model.
    method
        'flat', 'greedy' or 'full'.
    usual
        Thresholds by language, and for all others under 'all'; where neither is there, the method's default.
    alternatives
        Predictions for each text.
    autocast
        Context to compute in.
    stored
        Thresholds from the file beside the model, which take the place of the usual ones.
    ranked
        See `make_coder`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        method: str,
        usual: Mapping[str, float],
        alternatives: int = 1,
        autocast: Autocast = nullcontext,
        stored: StoredThresholds = StoredThresholds({}),  # noqa: B008
        ranked: int = 0,
    ) -> None:
        self.loaded = loaded
        self.method = method
        self.alternatives = alternatives
        self.max_codes = loaded.system.formatter.max_num_codes
        if method != GREEDY:
            self.max_codes = max(self.max_codes, min(ranked, len(loaded.system.codes or ())))
        self.stored = stored
        self.usual = usual
        self._autocast = autocast
        self._predictor = Predictor(loaded, autocast)
        if method == FULL:
            self._predictor.check_full()

    @property
    def has_decoder(self) -> bool:
        """Whether the model could answer by its decoder."""
        return GREEDY in self.loaded.methods

    @property
    def identity(self) -> Any:
        """Tells coders with other predictions apart, plain values."""
        with self._autocast():
            mixed = torch.is_autocast_enabled(self._predictor.device.type)
            dtype = str(torch.get_autocast_dtype(self._predictor.device.type)) if mixed else None
        return {"method": self.method, "alternatives": self.alternatives, "mixed_precision": dtype}

    def above_thresholds(
        self, coded: Coded, languages: Sequence[str], thresholds: Mapping[str, float] | None = None
    ) -> Coded:
        """Predictions without the codes that are not sure enough, each text judged by its language.

        `thresholds` by language, and for all others under 'all', take the place of those in force.
        """
        if thresholds is None:
            thresholds = self.stored.by_language or self.usual
        # Below every probability: a product of many can be exactly 0.
        default = thresholds.get(ALL_LANGUAGES, DEFAULT_THRESHOLDS.get(self.method, -1.0))
        return coded.keep_above(np.array([thresholds.get(language, default) for language in languages]))

    def __call__(self, texts: Sequence[str], languages: Sequence[str]) -> Coded:
        """Predictions for texts, without thresholds; they do not depend on each other."""
        texts = [self._predictor.clean(text) for text in texts]
        if self.method == FLAT:
            return self._best_classes(self._predictor.flat(texts, languages).sigmoid())
        if self.method == FULL:
            return self._best_classes(self._predictor.full(texts, languages))
        return self._spelt(self._predictor.greedy_top_k(texts, languages, self.alternatives, order_invariant=True))

    @cached_property
    def _codes(self) -> np.ndarray:
        """The code of each class."""
        codes = np.empty(len(self.loaded.system.codes), dtype=object)
        codes[:] = self.loaded.system.codes
        return codes

    def _best_classes(self, probabilities: Tensor) -> Coded:
        """The most probable classes of each text, from probabilities [B, C]."""
        number = min(self.max_codes, probabilities.size(1))
        best, classes = best_classes(probabilities, number)
        shape = (len(best), 1, self.max_codes)
        codes, confidence = np.full(shape, "", dtype=object), np.full(shape, np.nan)
        codes[:, 0, :number] = self._codes[classes.cpu().numpy()]
        confidence[:, 0, :number] = best.cpu().numpy()
        # A class of its own for texts without a code, in keys of older runs.
        confidence[codes == ""] = np.nan
        return Coded(codes, confidence, confidence[:, :, 0])

    def _spelt(self, rounds: list[DecodedCodes]) -> Coded:
        """The codes of each round, each once."""
        codes = np.full((len(rounds[0].codes), len(rounds), self.max_codes), "", dtype=object)
        for a, decoded in enumerate(rounds):
            for row, found in zip(codes[:, a], decoded.codes):
                distinct = list(dict.fromkeys(found))
                row[: len(distinct)] = distinct
        confidence = np.stack([decoded.confidence for decoded in rounds], axis=1)
        return Coded(codes, np.where(codes != "", confidence[:, :, None], np.nan), confidence)
