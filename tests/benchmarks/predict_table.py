"""What coding a table costs besides the model: `python -m tests.benchmarks.predict_table [--rows 1000000]`.

A table of many rows with few distinct texts is coded by a model that answers at once. Prints seconds for reading,
noting batches and writing, and the greatest memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from histocc.prediction.coder import Coded
from histocc.prediction.output import new_columns, write_predictions
from histocc.prediction.pairs import collect_pairs
from histocc.prediction.work import Work, code_pairs
from histocc.processes.distributed import Processes

COLUMNS = ["id", "parish", "occ1", "lang"]


class Instant:
    """Answers each text with a code that is its length."""

    method, max_codes, alternatives = "greedy", 5, 1

    def __call__(self, texts: list[str], languages: list[str]) -> Coded:
        """As `histocc.prediction.coder.Coder`."""
        codes = np.full((len(texts), 1, 5), "", dtype=object)
        codes[:, 0, 0] = [f"{len(text):05d}" for text in texts]
        return Coded(codes, np.where(codes != "", 0.9, np.nan), np.full((len(texts), 1), 0.9))


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=256)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.csv"), Path(folder, "out.csv")
        picks = rng.integers(0, args.texts, args.rows)
        with source.open("w") as file:
            file.write(",".join(COLUMNS) + "\n")
            file.writelines(f"{i:08d},parish {i % 977},occupation {n} of the town,en\n" for i, n in enumerate(picks))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = {}
        start = time.perf_counter()
        work = Work(Path(folder, "work"), {})
        pairs, rows = collect_pairs(source, "occ1", "lang", "unk", work.rows_file)
        seconds["reading"] = time.perf_counter() - start
        coder = Instant()
        start = time.perf_counter()
        code_pairs(pairs, coder, args.batch_size, work, Processes())
        seconds["noting batches"] = time.perf_counter() - start
        start = time.perf_counter()
        coded = work.results(len(pairs), coder)
        pair_of_row = np.memmap(work.rows_file, dtype=np.int32, mode="r")
        write_predictions(source, target, COLUMNS, pair_of_row, new_columns(coded, coder.method))
        seconds["writing"] = time.perf_counter() - start
    print(f"{rows:,} rows, {len(pairs):,} distinct texts")
    for name, value in seconds.items():
        print(f"{name:16} {value:6.1f} s")
    print(f"{'together':16} {sum(seconds.values()):6.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory           {peak / 2**10:6.0f} MB at most, {before / 2**10:.0f} MB of them before it began")


if __name__ == "__main__":
    main()
