"""Rows per second from memory to batches, beside a plain implementation, and the memory of a large table.

Run from the root of the repository:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.data_path
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader

from histocc.dataloader import OccDatasetMixerInMemMultipleFiles, TrainBatchSampler, make_loader
from histocc.formatter import hisco_blocky5
from tests.oracles.plain_rows import PlainRows

CLASSES = 1919
WORDS = Path(__file__).parents[1] / "golden" / "dataset_rows.csv"


def write_table(path: Path, rows: int, seed: int = 1) -> int:
    """Write distinct rows (a running number makes them so); returns the bytes of their descriptions."""
    rng = random.Random(seed)
    words = sorted(word for word in set(" ".join(pd.read_csv(WORDS)["occ1"].dropna()).split()) if word.isalpha())
    text_bytes = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("RowID,occ1,lang,code1,code2,code3,code4,code5\n")
        for i in range(rows):
            text = " ".join((*rng.choices(words, k=rng.randint(1, 4)), str(i)))
            text_bytes += len(text.encode())
            second = f"{rng.randrange(CLASSES)}.0" if rng.random() < 0.15 else ""
            language = rng.choice(("en", "da", "se", "nl", "de", "fr", "es"))
            file.write(f"{i},{text},{language},{rng.randrange(CLASSES)},{second},,,\n")
    return text_bytes


def rows_per_second(loader: Iterable[dict], seconds: float) -> float:
    """Rows a second over whole passes of a loader, for at least so long; the first batch is not counted."""
    rows, start = 0, None
    while start is None or time.perf_counter() - start < seconds:
        for batch in loader:
            if start is None:
                start = time.perf_counter()
                continue
            rows += len(batch["input_ids"])
            if time.perf_counter() - start >= seconds:
                break
    return rows / (time.perf_counter() - start)


def speed(rows: int, batch_size: int, max_len: int, seconds: float) -> dict[str, float]:
    """Rows per second of both implementations with default augmentation."""
    formatter = hisco_blocky5()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, rows)
        fast = OccDatasetMixerInMemMultipleFiles(path, formatter, None, max_len, CLASSES)
        frame = pd.read_csv(path, dtype={"occ1": str, "lang": str}, usecols=lambda name: name != "RowID")
    plain = PlainRows(frame, formatter, max_len, CLASSES)
    fast_loader = make_loader(fast, TrainBatchSampler(len(fast), batch_size, seed=42))
    plain_loader = DataLoader(plain, batch_size, shuffle=True)
    # By turns, so that a busy machine slows down both.
    figures: dict[str, list[float]] = {"batched": [], "plain": []}
    for _ in range(3):
        figures["plain"].append(rows_per_second(plain_loader, seconds))
        figures["batched"].append(rows_per_second(fast_loader, seconds))
    return {name: sorted(values)[1] for name, values in figures.items()}


def memory(rows: int) -> dict[str, float]:
    """Bytes a row that a data set holds beyond the UTF-8 text of its descriptions, all Python objects included."""
    formatter = hisco_blocky5()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        text_bytes = write_table(path, rows)
        OccDatasetMixerInMemMultipleFiles(path, formatter, None, 128, CLASSES)  # what imports and caches take
        tracemalloc.start()
        start = time.perf_counter()
        before = tracemalloc.get_traced_memory()[0]
        dataset = OccDatasetMixerInMemMultipleFiles(path, formatter, None, 128, CLASSES)
        after, peak = tracemalloc.get_traced_memory()
        seconds = time.perf_counter() - start
        tracemalloc.stop()
    assert len(dataset) == rows
    return {
        "text": text_bytes / rows,
        "beyond": (after - before - text_bytes) / rows,
        "peak": (peak - before) / rows,
        "seconds": seconds,
    }


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the table for the speed")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--max-len", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to measure, three times each")
    parser.add_argument("--memory-rows", type=int, default=1_000_000, help="rows of the table for the memory; 0: none")
    args = parser.parse_args()
    torch.set_num_threads(1)

    figures = speed(args.rows, args.batch_size, args.max_len, args.seconds)
    print(f"Default augmentation, L = {args.max_len}, B = {args.batch_size}, one core:")
    print(f"  one row at a time  {figures['plain']:>10,.0f} rows/s")
    print(f"  a batch at a time  {figures['batched']:>10,.0f} rows/s")
    print(f"  ratio              {figures['batched'] / figures['plain']:>10.1f}")
    if args.memory_rows:
        held = memory(args.memory_rows)
        print(f"A table of {args.memory_rows:,} distinct rows, {held['text']:.1f} bytes of text a row:")
        print(f"  held beyond the text  {held['beyond']:>6.1f} bytes a row")
        print(f"  peak while reading    {held['peak']:>6.1f} bytes a row, text included")


if __name__ == "__main__":
    main()
