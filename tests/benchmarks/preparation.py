"""How fast a table is prepared: `python -m tests.benchmarks.preparation [--rows 1000000] [--codes 2000]`.

Prints rows a second for the whole call, for its three parts (reading the CSV, the preparation itself, writing the
files), for the whole call where pandas writes the files, for pandas reading the table and writing it back with nothing
in between, and for the plain row-by-row implementation on a part of the
table, all measured in one run. Processor time is what the work costs on one core; elapsed time also counts what other
programs on the machine take.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from histocc.formatter import construct_general_purpose_formatter
from histocc.preparation import pipeline, prepare
from tests.oracles.plain_preparation import plain_prepare, write_plain

WORDS = ["farmer", "smith", "labourer", "of", "the", "servant", "retired", "(deceased)", "master", "weaver", "cotton"]


def make_table(path: Path, n_rows: int, n_codes: int, n_columns: int) -> None:
    """Random descriptions of two to six words; one row in five has a second code, and so on."""
    rng = np.random.default_rng(0)
    codes = np.array([f"{code:05}" for code in rng.choice(100_000, n_codes, replace=False)], dtype=object)
    texts = [" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(5_000)]
    texts[::20] = [text.replace(" ", ", ", 1) for text in texts[::20]]  # quoted in the files
    columns = [codes[rng.integers(0, n_codes, n_rows)]]
    for _ in range(1, n_columns):
        more = codes[rng.integers(0, n_codes, n_rows)]
        more[(columns[-1] == "") | (rng.random(n_rows) < 0.8)] = ""
        columns.append(more)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["occ1", *(f"code{i}" for i in range(n_columns)), "language"])
        picks = rng.integers(0, len(texts), n_rows).tolist()
        spoken = rng.choice(["da", "en", "nl"], n_rows).tolist()
        for i, row in enumerate(zip(*columns)):
            writer.writerow([f"{texts[picks[i]]} {i}", *row, spoken[i]])


@contextlib.contextmanager
def stopwatch(seconds: dict[str, np.ndarray], name: str):
    """Adds processor and elapsed seconds."""
    start = np.array([time.process_time(), time.perf_counter()])
    yield
    seconds[name] = np.array([time.process_time(), time.perf_counter()]) - start


def timed(seconds: dict[str, np.ndarray], name: str, function):
    def wrapped(*args, **kwargs):
        with stopwatch(seconds, name):
            return function(*args, **kwargs)

    return wrapped


def by_pandas(path: Path, header: list[str], texts: list[str], columns, rows: np.ndarray, progress=None) -> None:
    """The files as pandas writes them, for comparison with `histocc.preparation.writing`."""
    frame = pd.DataFrame({header[0]: np.array(texts, dtype=object)[rows]})
    for name, (values, numbers) in zip(header[1:], columns):
        frame[name] = np.array(values, dtype=object)[numbers[rows]]
    frame.to_csv(path, index=False, lineterminator="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--codes", type=int, default=2_000)
    parser.add_argument("--columns", type=int, default=2, help="code columns")
    parser.add_argument("--plain-rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    formatter = construct_general_purpose_formatter(5, [f"code{i}" for i in range(args.columns)])

    with tempfile.TemporaryDirectory() as folder:
        table, part = Path(folder, "table.csv"), Path(folder, "part.csv")
        make_table(table, args.rows, args.codes, args.columns)
        with table.open(encoding="utf-8") as file:
            part.write_text("".join(line for line, _ in zip(file, range(args.plain_rows + 1))), encoding="utf-8")

        def plain() -> None:
            result = plain_prepare(part, "occ1", formatter, 0.1, language_col="language")
            write_plain(Path(folder, "train.csv"), result.header, result.train)
            write_plain(Path(folder, "val.csv"), result.header, result.val)

        print(f"{args.rows:,} rows, {args.codes:,} codes in {args.columns} columns, best of {args.repeats} runs")
        best: dict[str, np.ndarray] = {}
        for i in range(args.repeats):
            seconds: dict[str, np.ndarray] = {}
            with (
                mock.patch.object(pipeline, "read_table", timed(seconds, "reading", pipeline.read_table)),
                mock.patch.object(pipeline, "write_together", timed(seconds, "writing", pipeline.write_together)),
                stopwatch(seconds, "whole call"),
            ):
                prepare(table, "occ1", formatter, Path(folder, f"out{i}"), 0.1, language_col="language", progress=False)
            seconds["preparation"] = seconds["whole call"] - seconds["reading"] - seconds["writing"]
            with (
                mock.patch.object(pipeline, "write_table", by_pandas),
                stopwatch(seconds, "by pandas"),
            ):
                out = Path(folder, f"pandas{i}")
                prepare(table, "occ1", formatter, out, 0.1, language_col="language", progress=False)
            assert (out / "data_train.csv").read_bytes() == Path(folder, f"out{i}", "data_train.csv").read_bytes()
            with stopwatch(seconds, "pandas alone"):
                frame = pd.read_csv(table, dtype=str, keep_default_na=False)
                frame.to_csv(Path(folder, "frame.csv"), index=False, lineterminator="\n")
            with stopwatch(seconds, "plain"):
                plain()
            best = {name: np.minimum(seconds[name], best.get(name, np.inf)) for name in seconds}

    print(f"{'rows a second of':20} {'processor time':>15} {'ratio':>6} {'elapsed time':>15} {'ratio':>6}")
    rates = {name: (args.plain_rows if name == "plain" else args.rows) / best[name] for name in best}
    for name in ("reading", "preparation", "writing", "whole call", "by pandas", "pandas alone", "plain"):
        (cpu, wall), (cpu_ratio, wall_ratio) = rates[name], rates[name] / rates["plain"]
        print(f"{name:20} {cpu:15,.0f} {cpu_ratio:6.1f} {wall:15,.0f} {wall_ratio:6.1f}")
    print(
        f"whole call, in times of pandas alone: {best['whole call'][0] / best['pandas alone'][0]:.2f} of processor time"
    )


if __name__ == "__main__":
    main()
