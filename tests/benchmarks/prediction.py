"""Texts a second of prediction on one core of a CPU, beside the plain way, in one run.

The plain way takes transformers' tokenizer for each text, its encoder on full padding, and torch's decoder: greedy on
the growing prefix, full search one node of the tree of codes after the other. Both take turns, so that a busy machine
slows both down. Models have random weights; CANINE-s at full size has 132 million parameters:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.prediction --data FILE

FILE is a table in the format of `train_mixer.py` (columns occ1, lang); the sample that ships by default.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from histocc.datasets import sample_paths
from histocc.files.tables import read_chunks
from histocc.formatter import coding_system
from histocc.layers.attention import use_fused_attention
from histocc.model_assets import Seq2SeqMixerOccCANINE, encoder_settings
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.predictor import Predictor
from histocc.stored_model import ModelSettings
from tests.benchmarks.training_step import ENCODERS
from tests.oracles import plain_decoding as plain

MAX_LEN = 128
# Texts for each measurement of the plain way, which takes the same time for all, and of this package, which gains from
# running texts of like length together. The plain full search calls the decoder 2,155 times for each batch.
ROWS = {
    "canine-s": {"greedy": (16, 16), "flat": (32, 512), "full": (2, 2)},
    "small": {"greedy": (64, 64), "flat": (256, 2048), "full": (8, 8)},
}
Texts = Sequence[tuple[str, str]]


@dataclass
class Models:
    """The same weights twice: as the plain way runs them, and as a predictor does."""

    plain: Seq2SeqMixerOccCANINE
    predictor: Predictor

    @classmethod
    def make(cls, encoder: str) -> Models:
        from transformers import CanineConfig

        torch.manual_seed(0)
        config, system = CanineConfig(**ENCODERS[encoder]), coding_system("hisco")
        sizes = ("", system.formatter.num_classes, system.num_classes)
        with torch.no_grad():
            slow = Seq2SeqMixerOccCANINE(*sizes, encoder=config, fast_encoder=False).eval()
            fast = Seq2SeqMixerOccCANINE(*sizes, encoder=config).eval()
            fast.load_state_dict(slow.state_dict())
        use_fused_attention(fast.encoder)
        settings = ModelSettings("mixer", MAX_LEN, encoder=encoder_settings(config))
        return cls(slow, Predictor(LoadedModel(fast, system, settings, "hisco", "", None, None, None, {})))

    @property
    def blocks(self) -> np.ndarray:
        """Tokens of all codes."""
        system = self.predictor.loaded.system
        return np.stack([system.formatter.encode_block(code) for code in system.codes])


def read_texts(path: Path) -> list[tuple[str, str]]:
    """Texts and languages of a table."""
    found = []
    for chunk in read_chunks(path, ["occ1", "lang"]):
        found += [(text, lang or "unk") for text, lang in zip(chunk["occ1"].tolist(), chunk["lang"].tolist()) if text]
    return found


def plain_inputs(texts: Texts) -> tuple[Tensor, Tensor]:
    """Ids and mask, one text at a time."""
    return plain.tokenize([f"{lang}[SEP]{text}" for text, lang in texts], MAX_LEN)


def plainly(models: Models, method: str, texts: Texts) -> np.ndarray:
    """The answer of the plain way: tokens, logits or probabilities."""
    ids, mask = plain_inputs(texts)
    if method == "flat":
        return plain.flat(models.plain, ids, mask).numpy()
    memory, _ = plain.encode(models.plain, ids, mask)
    if method == "greedy":
        return plain.greedy(models.plain, memory, models.predictor.formatter.max_seq_len)[0].numpy()
    return plain.full_search(models.plain, memory, models.blocks)


def predicted(models: Models, method: str, texts: Texts, batch_size: int) -> np.ndarray:
    """The answer of this package, in the same form."""
    # Longest first, as commands and `OccCANINE` run them.
    order = np.argsort([-len(text) for text, _ in texts], kind="stable")
    parts = []
    for start in range(0, len(order), batch_size):
        own, languages = zip(*[texts[i] for i in order[start : start + batch_size]])
        if method == "greedy":
            parts.append(models.predictor.greedy(own, languages, order_invariant=False).tokens)
        else:
            parts.append(getattr(models.predictor, method)(own, languages).numpy())
    joined = np.concatenate(parts)
    answers = np.empty_like(joined)
    answers[order] = joined
    return answers


def timed(action: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds and the result."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def compare(models: Models, method: str, few: Texts, texts: Texts, rounds: int, batch_size: int) -> dict[str, float]:
    """Median seconds a text of both, by turns, and the median of the rounds' ratios; on the first texts both agree."""
    plain_batches = [few[start : start + batch_size] for start in range(0, len(few), batch_size)]
    predicted(models, method, texts[:1], batch_size)
    plain_inputs(texts[:1])
    seconds = []
    for _ in range(rounds):
        slow, expected = timed(lambda: np.concatenate([plainly(models, method, batch) for batch in plain_batches]))
        fast, found = timed(lambda: predicted(models, method, texts, batch_size))
        seconds.append((slow / len(few), fast / len(texts)))
    found = found[: len(few)]
    if method == "greedy":
        # With random weights tokens are nearly equally probable, and rounding may decide.
        agree = float((expected == found).all(axis=1).mean())
    else:
        agree = float(np.isclose(expected, found, rtol=1e-3, atol=1e-5).mean())
    assert agree > 0.9, f"{method}: {agree:.0%} agree"
    slow, fast = (statistics.median(column) for column in zip(*seconds))
    return {"plain": slow, "seconds": fast, "ratio": statistics.median(a / b for a, b in seconds)}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=sample_paths()[0], help="table with the columns occ1, lang")
    parser.add_argument("--encoder", nargs="+", choices=ENCODERS, default=list(ROWS))
    parser.add_argument("--method", nargs="+", choices=("greedy", "flat", "full"), default=["greedy", "flat", "full"])
    parser.add_argument("--rows", type=int, default=None, help="texts for each measurement, instead of the defaults")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="turns of both")
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict[str, float | str]]:
    """Print a table; returns its rows."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    texts = read_texts(args.data)
    # Spread over the table, whose order may mean something.
    np.random.default_rng(0).shuffle(texts)
    table = []
    print(f"{'encoder':10} {'method':8} {'rows':>5} {'plain, texts/s':>15} {'here, texts/s':>14} {'x plain':>8}")
    for encoder in args.encoder:
        models = Models.make(encoder)
        for method in args.method:
            few, rows = (args.rows, args.rows) if args.rows else ROWS[encoder][method]
            figures = compare(models, method, texts[:few], texts[:rows], args.rounds, args.batch_size)
            table.append({"encoder": encoder, "method": method, "rows": min(rows, len(texts)), **figures})
            print(
                f"{encoder:10} {method:8} {rows:>5} {1 / figures['plain']:>15.3g} {1 / figures['seconds']:>14.3g} "
                f"{figures['ratio']:>8.1f}",
                flush=True,
            )
    return table


if __name__ == "__main__":
    main()
