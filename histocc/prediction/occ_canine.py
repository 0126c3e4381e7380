"""The original's wrapper: a model by name, texts in, data frames out."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.errors import UsageError
from histocc.files import console, run_folder
from histocc.model_assets import getModel, load_tokenizer
from histocc.prediction import frames
from histocc.prediction.descriptions import read_descriptions
from histocc.prediction.finetuning import FinetuningOptions, finetune
from histocc.prediction.fitting import FittingSize
from histocc.prediction.loaded import FLAT, FULL, GREEDY, GREEDY_TOP_K, LoadedModel
from histocc.prediction.loading import HISCO, load_model, untrained_model
from histocc.prediction.predictor import DecodedCodes, Predictor, best_classes
from histocc.prediction.questions import Questions
from histocc.prediction.threshold_table import ALL_LANGUAGES, STALE_THRESHOLDS, read_thresholds
from histocc.prediction.thresholds import default_threshold
from histocc.processes.distributed import pick_device
from histocc.training.precision import Precision

if TYPE_CHECKING:
    from transformers import CanineConfig

T = TypeVar("T")
# The numbers of pairs, int64 [b], and what was answered to them.
Answered: TypeAlias = tuple[np.ndarray, T]

ModelType = Literal["flat", "seq2seq", "mix"]
PredType = Literal["flat", "greedy", "greedy-topk", "full"]
BehaviorType = Literal["good", "fast"]

_BEHAVIOURS = {"good": GREEDY, "fast": FLAT}
# By method; 'embeddings' goes with all.
_OUTPUTS = {
    FLAT: ("pred", "probs", "logits", "bin"),
    GREEDY: ("pred", "bin"),
    GREEDY_TOP_K: ("pred",),
    FULL: ("pred", "probs", "bin"),
}
EMBEDDINGS = "embeddings"
# Languages that the published models know by names of their own.
_OTHER_NAMES = {"de": "ge", "sv": "se", "el": "gr"}
_MOST_NAMED = 5
_KINDS = {"flat": "flat", "seq2seq": "seq2seq", "mix": "mixer"}

_CITATION = (
    "Dahl, C. M., Johansen, T., & Vedel, C. (2024). Breaking the HISCO Barrier: Automatic Occupational Standardization "
    "with OccCANINE. arXiv:2402.13604"
)
_BIBTEX = """@article{dahl2024hisco,
  title = {Breaking the HISCO Barrier: Automatic Occupational Standardization with OccCANINE},
  author = {Dahl, Christian M{\\o}ller and Johansen, Torben and Vedel, Christian},
  journal = {arXiv preprint arXiv:2402.13604},
  year = {2024},
}"""


class OccCANINE:
    """A trained model that codes occupational descriptions.

    Parameters
    ----------
    name
        A published model (`OccCANINE_s2s_mix`, HISCO, by default), another model of the hub (`owner/name`), the file of
        a model or the folder of a run.
    device
        Where it runs; a GPU where there is one by default.
    batch_size
        Texts at a time.
    verbose
        Show progress, and say how long it took.
    baseline
        The pretrained encoder under heads with random weights, to compare a trained model with.
    hf
        False: `name` is a file or a folder. True: it may be a name of the hub as well.
    force_download
        Fetch anew what the local cache has.
    system
        The coding system of files that do not say which they have, after which the columns are named.
    model_type
        'flat', 'seq2seq' or 'mix': the kind of model for `skip_load` and `baseline`; other models say it themselves.
    skip_load
        Random weights.
    descriptions
        What codes mean: a data frame or a file with the columns `system_code` and `desc`.
    use_within_block_sep
        Codes are lists of parts such as ``1,13,0,0``; for files that do not say so.
    target_cols
        Code columns in training, ``{system}_1`` to ``{system}_4`` by default; for files that do not say so.
    encoder
        Folder or `CanineConfig` of the encoder; for files that do not say which they have.
    amp
        Mixed precision on a GPU.

    Raises
    ------
    UsageError
        There is no such model, or it cannot be used; the message says what to do.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] = "OccCANINE_s2s_mix",
        device: torch.device | str | None = None,
        batch_size: int = 256,
        verbose: bool = True,
        baseline: bool = False,
        hf: bool = True,
        force_download: bool = False,
        system: str = HISCO,
        model_type: ModelType | None = None,
        skip_load: bool = False,
        descriptions: pd.DataFrame | str | os.PathLike[str] | None = None,
        use_within_block_sep: bool = False,
        target_cols: Sequence[str] | None = None,
        encoder: str | os.PathLike[str] | CanineConfig | None = None,
        *,
        amp: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, but at least 1 text has to run at a time")
        device = pick_device() if device is None else torch.device(device)
        if skip_load or baseline:
            kind = _KINDS.get("mix" if model_type is None else model_type)
            if kind is None:
                raise UsageError(f"model_type is {model_type!r}; it must be one of {', '.join(map(repr, _KINDS))}")
            pretrained = getModel() if baseline and encoder is None else None
            loaded = untrained_model(kind, device, system, encoder, pretrained)
        else:
            loaded = load_model(
                name,
                device,
                hub=hf,
                force_download=force_download,
                system=system,
                use_within_block_sep=use_within_block_sep,
                target_cols=target_cols,
                encoder=encoder,
            )
        self.name = os.fspath(name)
        self.batch_size = batch_size
        self.verbose = verbose
        self.prediction_type: str | None = None
        self.predictor = Predictor(loaded, Precision(device, use_amp=amp).autocast)
        self.key_desc = read_descriptions(descriptions, getattr(loaded.system.formatter, "code_len", None))
        self._known = frozenset(loaded.system.codes or ())
        self._fitting = FittingSize(console.say)

    # --- What the original's users look at ----------------------------------------------------------------------------

    @property
    def model(self) -> torch.nn.Module:
        """The model itself."""
        return self.predictor.model

    @property
    def model_type(self) -> str:
        """'flat', 'seq2seq' or 'mix'."""
        return next(name for name, kind in _KINDS.items() if kind == self._loaded.settings.kind)

    @property
    def system(self) -> str:
        """What the columns of codes are named after."""
        return self._loaded.label

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.predictor.device

    @property
    def formatter(self) -> Any:
        """Codes to tokens and back."""
        return self.predictor.formatter

    @cached_property
    def tokenizer(self) -> Any:
        """CANINE's tokenizer; predictions do without it."""
        return load_tokenizer()

    @property
    def _loaded(self) -> LoadedModel:
        return self.predictor.loaded

    @property
    def codes_list(self) -> list[str]:
        """All codes in the order of their classes; empty where a decoder alone has no key."""
        return list(self._loaded.system.codes or ())

    @property
    def key(self) -> dict[int, str]:
        """The code of each class index."""
        return dict(enumerate(self.codes_list))

    @property
    def finetune_key(self) -> dict[str, int]:
        """The class index of each code."""
        return dict(self._loaded.system.key or {})

    @property
    def code_len(self) -> int:
        """Tokens of a code."""
        return self.formatter.block_size

    @property
    def max_seq_len(self) -> int:
        """The ids of a text at most."""
        return self._loaded.settings.max_len

    @property
    def use_within_block_sep(self) -> bool:
        """Whether codes are lists of parts."""
        return getattr(self.formatter, "within_block_sep", None) is not None

    def __repr__(self) -> str:
        """Name, kind and size."""
        return (
            f"OccCANINE({self.name!r}, {self.model_type}, {self.system}, {len(self.codes_list):,} codes, "
            f"on {self.device})"
        )

    def citation(self, BibTex: bool = False) -> str:
        """How to cite OccCANINE."""
        return _BIBTEX if BibTex else _CITATION

    # --- Predictions --------------------------------------------------------------------------------------------------

    def __call__(self, occ1: Any, *args: Any, **kwargs: Any) -> pd.DataFrame | np.ndarray:
        """The same as `predict`."""
        return self.predict(occ1, *args, **kwargs)

    def predict(
        self,
        occ1: str | Sequence[str],
        lang: str | Sequence[str] = "unk",
        what: str = "pred",
        threshold: float | None = None,
        behavior: BehaviorType = "good",
        prediction_type: PredType | None = None,
        k_pred: int = 5,
        deduplicate: bool = False,
        order_invariant_conf: bool = True,
    ) -> pd.DataFrame | np.ndarray:
        """Code descriptions.

        Parameters
        ----------
        occ1
            A description or several. A missing or blank one gets no code.
        lang
            One language for all, or one for each; a missing one is 'unk'.
        what
            'pred': codes and how sure the model is. 'bin': 0 or 1 for every code. 'probs' and 'logits': of every code.
            'embeddings': the pooled encoding.
        threshold
            Flat head and full search: only more probable codes count; by language by default.
        behavior
            'good' is 'greedy', 'fast' is 'flat'.
        prediction_type
            'flat', 'greedy', 'greedy-topk' or 'full', rather than `behavior`.
        k_pred
            Flat head and full search: how many codes at most; 'greedy-topk': how many rounds.
        deduplicate
            Adds a column of the languages. Equal pairs of text and language run once in any case.
        order_invariant_conf
            'greedy': the confidence of a text with several codes is the sum of the probabilities with which each of
            them comes first.

        Returns
        -------
        DataFrame or ndarray
            A row for each text, in order, with what the model read in the column `occ1`; of 'greedy-topk' a row for
            each round, batch by batch. 'probs' is an array, [n, C].

        Raises
        ------
        UsageError
            The model has no such method, or an argument is not what it must be.
        """
        start = time.perf_counter()
        method = self._method(behavior, prediction_type)
        self._check_arguments(method, what, k_pred, threshold)
        asked = Questions(occ1, lang, self.predictor.clean)
        self._check_languages(asked)
        rows: Sequence[int] = range(len(asked))
        if what == EMBEDDINGS:
            encodings = self._run(asked, self.predictor.embeddings)
            answer = pd.DataFrame(self._joined(asked, encodings, self._hidden_size))
        elif method == GREEDY:
            answer = self._greedy(asked, what, order_invariant_conf)
        elif method == GREEDY_TOP_K:
            answer, rows = self._greedy_top_k(asked, k_pred)
        elif what == "pred" or what == "bin":
            answer = self._best(asked, method, what, threshold, k_pred)
        else:
            answer = self._scores(asked, method, what)
        self.prediction_type = method
        if self.verbose:
            console.say(
                f"{len(asked):,} texts, {len(asked.distinct_texts):,} of them distinct, coded by {method!r} in "
                f"{time.perf_counter() - start:,.1f} s"
            )
        if not isinstance(answer, pd.DataFrame):
            return answer
        languages = [asked.languages[row] for row in rows] if deduplicate else None
        return frames.with_inputs(answer, [asked.inputs[row] for row in rows], languages)

    def finetune(
        self,
        dataset: str | os.PathLike[str] | pd.DataFrame,
        save_path: str | os.PathLike[str],
        input_col: str,
        language: str,
        language_col: str | None,
        target_cols: Sequence[str] | None = None,
        save_interval: int = 1000,
        log_interval: int = 10,
        eval_interval: int = 100,
        drop_bad_labels: bool = True,
        allow_codes_shorter_than_block_size: bool = True,
        share_val: float = 0.1,
        learning_rate: float = 2e-05,
        num_epochs: int = 3,
        warmup_steps: int = 500,
        seq2seq_weight: float = 0.1,
        freeze_encoder: bool = True,
    ) -> None:
        """Train a new model on a table of your own, starting from this one, which stays as it is.

        ``finetune.py`` does more: several processes, mixed precision, resuming.

        Parameters
        ----------
        dataset
            A CSV or Parquet file, or a data frame.
        save_path
            Folder for prepared files and checkpoints, without a run in it; `OccCANINE(save_path)` loads the new model.
        input_col
            Column of the descriptions.
        language, language_col
            The language of all rows, or the column of the languages.
        target_cols
            Columns of the codes; by default ``{system}_1``, ``{system}_2``, ... as far as the table has them.
        save_interval, log_interval, eval_interval
            Steps between checkpoints, figures of training, and evaluations.
        drop_bad_labels
            Leave rows that do not fit out; else they are an error.
        allow_codes_shorter_than_block_size
            Accept codes with fewer characters than this model's.
        share_val
            Share of the rows for validation.
        learning_rate, num_epochs, warmup_steps, seq2seq_weight
            As for ``finetune.py``; a batch is `batch_size` rows.
        freeze_encoder
            Train decoder and flat head alone.

        Raises
        ------
        UsageError
            The table cannot be used, or `save_path` has checkpoints already.
        """
        given = {name: value for name, value in locals().items() if name not in ("self", "dataset", "save_path")}
        finetune(self._loaded, dataset, save_path, FinetuningOptions(**given, batch_size=self.batch_size))

    def _method(self, behavior: str, prediction_type: str | None) -> str:
        if prediction_type is not None:
            if prediction_type not in _OUTPUTS:
                methods = ", ".join(map(repr, _OUTPUTS))
                raise UsageError(f"prediction_type is {prediction_type!r}; it must be one of {methods}")
            return prediction_type
        if behavior not in _BEHAVIOURS:
            raise UsageError(f"behavior is {behavior!r}; it must be one of {', '.join(map(repr, _BEHAVIOURS))}")
        return _BEHAVIOURS[behavior]

    def _check_arguments(self, method: str, what: str, k_pred: int, threshold: float | None) -> None:
        if what != EMBEDDINGS:  # which all models have
            self._loaded.check(method, "prediction_type=")
            if method == FULL:
                self.predictor.check_full()
            if what not in _OUTPUTS[method]:
                outputs = ", ".join(map(repr, (*_OUTPUTS[method], EMBEDDINGS)))
                raise UsageError(f"what is {what!r}, which {method!r} does not give; it must be one of {outputs}")
        if not isinstance(k_pred, (int, np.integer)) or k_pred < 1:
            raise UsageError(f"k_pred is {k_pred!r}; it must be a whole number, at least 1")
        if threshold is not None and not (isinstance(threshold, (int, float)) and 0 <= threshold <= 1):
            raise UsageError(f"threshold is {threshold!r}; it must be a probability, 0 to 1")

    def _check_languages(self, asked: Questions) -> None:
        """A model answers in any language, and worse in one that it has never seen."""
        known = self._loaded.languages
        unknown = sorted(set(asked.languages) - {*(known or asked.languages), UNKNOWN_LANGUAGE})
        if not unknown:
            return
        named = ", ".join(f"{name!r}{_hint(name, known)}" for name in unknown[:_MOST_NAMED])
        message = f"lang names {named}, which the model was not trained with; it knows {', '.join(sorted(known))}"
        if self._loaded.folder is None:
            # The original takes any language with the published models.
            warnings.warn(message, stacklevel=3)
        else:
            raise UsageError(f"{message}, and 'unk' for any other")

    def _run(self, asked: Questions, answer: Callable[..., T], *args: Any, **kwargs: Any) -> Iterator[Answered[T]]:
        """What a method of the predictor answers to the distinct pairs, with a bar where it takes several batches."""
        order = asked.longest_first()
        shown = self.verbose and len(order) > self.batch_size
        with tqdm(total=len(order), unit=" texts", disable=not shown) as bar:
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]

                def answer_part(part: slice, batch: np.ndarray = batch) -> Answered[T]:
                    rows = batch[part]
                    texts = [asked.distinct_texts[row] for row in rows]
                    return rows, answer(texts, [asked.distinct_languages[row] for row in rows], *args, **kwargs)

                for rows, answered in self._fitting.parts(len(batch), answer_part):
                    yield rows, answered
                    bar.update(len(rows))

    def _joined(self, asked: Questions, batches: Iterator[Answered[torch.Tensor]], width: int) -> np.ndarray:
        """Answers [b, width] of all batches as one array of the rows, NaN where there is no text."""
        joined = np.empty((len(asked.distinct_texts), width), dtype=np.float32)
        for rows, answers in batches:
            joined[rows] = answers.cpu().numpy()
        return asked.spread(joined)

    @property
    def _hidden_size(self) -> int:
        encoder = self.model.basemodel if self.model_type == "flat" else self.model.encoder
        return encoder.config.hidden_size

    def _scores(self, asked: Questions, method: str, what: str) -> pd.DataFrame | np.ndarray:
        """Logits or probabilities of all classes."""
        batches = self._run(asked, self.predictor.flat if method == FLAT else self.predictor.full)
        if method == FLAT and what == "probs":
            batches = ((rows, logits.sigmoid()) for rows, logits in batches)
        scores = self._joined(asked, batches, len(self.codes_list))
        return pd.DataFrame(scores) if what == "logits" else scores

    def _best(self, asked: Questions, method: str, what: str, threshold: float | None, k: int) -> pd.DataFrame:
        """The k best classes as codes, or as 0 and 1."""
        k = min(k, len(self.codes_list))
        number = len(asked.distinct_texts)
        classes = np.zeros((number, k), dtype=np.int64)
        probabilities = np.zeros((number, k), dtype=np.float32)
        for rows, scores in self._run(asked, self.predictor.flat if method == FLAT else self.predictor.full):
            best, chosen = best_classes(scores, k)
            classes[rows] = chosen.cpu().numpy()
            probabilities[rows] = (best.sigmoid() if method == FLAT else best).cpu().numpy()
        classes, probabilities = asked.spread(classes, 0), asked.spread(probabilities)
        thresholds = self._thresholds(asked, method, threshold)
        if what == "pred":
            return frames.best_frame(self.system, self.codes_list, self._describe, classes, probabilities, thresholds)
        indicators = np.zeros((len(asked), len(self.codes_list)), dtype=bool)
        np.put_along_axis(indicators, classes, probabilities >= thresholds[:, None], axis=1)
        return frames.indicator_frame(self.system, self.codes_list, indicators)

    def _thresholds(self, asked: Questions, method: str, threshold: float | None) -> np.ndarray:
        """The threshold of each row: the one given, that found by `histocc evaluate`, or that of its language."""
        if threshold is not None:
            return np.full(len(asked), threshold)
        loaded = self._loaded
        found: dict[str, float] = {}
        if loaded.folder is not None:
            found, stale = read_thresholds(loaded.folder / run_folder.THRESHOLDS, method, loaded.weights_mark)
            if stale:
                warnings.warn(STALE_THRESHOLDS.format(loaded.folder / run_folder.THRESHOLDS), stacklevel=3)
        by_language = {
            name: found.get(name, found.get(ALL_LANGUAGES, default_threshold(name))) for name in set(asked.languages)
        }
        return np.array([by_language[name] for name in asked.languages], dtype=np.float64)

    def _greedy(self, asked: Questions, what: str, order_invariant: bool) -> pd.DataFrame:
        batches = self._run(asked, self.predictor.greedy, order_invariant=order_invariant)
        codes, confidence = _decoded(asked, ((rows, [decoded]) for rows, decoded in batches), 1)
        if what == "pred":
            return frames.codes_frame(self.system, codes[0], self._describe).assign(conf=confidence[:, 0])
        key = self._loaded.system.key or {}
        indicators = np.zeros((len(asked), len(self.codes_list)), dtype=bool)
        for row, found in zip(indicators, codes[0]):
            row[[key[code] for code in found if code in key]] = True
        return frames.indicator_frame(self.system, self.codes_list, indicators)

    def _greedy_top_k(self, asked: Questions, rounds: int) -> tuple[pd.DataFrame, list[int]]:
        """The frame, and to which text each of its rows belongs: batch by batch, in a batch round by round."""
        codes, confidence = _decoded(asked, self._run(asked, self.predictor.greedy_top_k, rounds), rounds)
        order = [
            (row, number)
            for start in range(0, len(asked), self.batch_size)
            for number in range(rounds)
            for row in range(start, min(start + self.batch_size, len(asked)))
        ]
        frame = frames.codes_frame(self.system, [codes[number][row] for row, number in order], self._describe)
        frame["top-k-pos"] = [number for _, number in order]
        frame["conf"] = [confidence[row, number] for row, number in order]
        return frame, [row for row, _ in order]

    def _describe(self, code: str) -> str:
        if code not in self._known:
            return frames.UNKNOWN
        return self.key_desc.get(code, frames.NO_DESCRIPTION)


def _decoded(
    asked: Questions, batches: Iterator[Answered[list[DecodedCodes]]], rounds: int
) -> tuple[list[list[Sequence[str]]], np.ndarray]:
    """The codes of each round and row, and the confidences [n, rounds]; none where there is no text."""
    codes: list[list[Sequence[str]]] = [[()] * len(asked.distinct_texts) for _ in range(rounds)]
    confidence = np.empty((len(asked.distinct_texts), rounds))
    for rows, decoded in batches:
        for number, each in enumerate(decoded):
            confidence[rows, number] = each.confidence
            for row, found in zip(rows.tolist(), each.codes):
                codes[number][row] = found
    return [asked.spread_list(each, ()) for each in codes], asked.spread(confidence)


def _hint(language: str, known: Collection[str]) -> str:
    other = _OTHER_NAMES.get(language)
    return f" (which it knows as {other!r})" if other in known else ""
