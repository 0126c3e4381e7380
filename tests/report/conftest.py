"""A run's folder with figures, and what the run is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from histocc.files.json_files import write_json
from histocc.report.facts import RunFacts
from histocc.training.reporting import LogFile

NAN = float("nan")


def figures(rows: int, exact: float, precision: float = 50.0) -> dict[str, Any]:
    return {"rows": rows, "exact_set_acc": exact, "precision": precision, "recall": 25.0, "f1": 33.25}


def summary(exact: float, language: str = "en") -> dict[str, Any]:
    return {
        **figures(10, exact),
        "by_codes": {"1": figures(7, exact), "2": figures(3, 12.5, NAN)},
        "by_language": {"unk": figures(3, 0.0), language: figures(7, 99.5)},
        "by_description": {"unseen": figures(6, 21.5), "seen": figures(4, 87.5)},
        "cells": [],
    }


def metrics(language: str = "en", text: str = "farmer") -> dict[str, Any]:
    """What an evaluation knows beyond its row of the log."""
    return {
        "heads": {"teacher_forced": summary(60.0), "decoded": summary(40.0, language), "flat": summary(0.0)},
        "mistakes": {
            "head": "decoded",
            "confused": [{"true": "61110", "predicted": "62105", "rows": 5, "examples": [text, "bonde"]}],
            "worst_covered": [{"code": "75400", "rows": 4, "found": 1, "examples": [text]}],
        },
    }


@pytest.fixture
def facts() -> RunFacts:
    """Of a run of 800 steps."""
    return RunFacts(
        kind="mixer",
        system="hisco",
        codes=1919,
        codes_a_row=5,
        max_len=128,
        command="python train_mixer.py --save-dir run --train-data a.csv --val-data b.csv --batch-size 64",
        encoder="google/canine-s",
        total_steps=800,
        tables={"training": ["a.csv"], "validation": ["b.csv"]},
        rows={"training": 1300, "validation": 10},
        languages={"en": 1000, "da": 300},
        header={"batch size": "64 rows", "save folder": "run"},
        changed={"batch_size": 64, "train_data": ["a.csv"], "demo": True},
        settings={"batch_size": 64, "seed": 42, "key": None},
        versions={"histocc": "1.0.0", "torch": "2.13.0"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder after two evaluations, of which the first is the best."""
    run = tmp_path / "run"
    (run / "metrics").mkdir(parents=True)
    rows = [
        {"step": 400, "train_loss": 0.9, "val_loss": 0.5, "lr": 1e-5, "precision": NAN},
        {"step": 800, "train_loss": 0.4, "val_loss": 0.6, "lr": 0.0, "precision": 2.0},
    ]
    others = ("val_loss_seq2seq", "val_loss_linear", "decoded_exact_set_acc", "f1", "seq_acc", "rows_per_second")
    LogFile(run / "logs.csv").append(*({**row, **dict.fromkeys(others, 9.0)} for row in rows))
    write_json(run / "metrics" / "400.json", metrics())
    write_json(run / "metrics" / "800.json", metrics(text="gårdmand"))
    for name in ("last.bin", "best.bin", "800.bin", "key.csv", "notes of mine.txt"):
        (run / name).touch()
    return run
