"""What the runs of these tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import command, small_encoder, table


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder`, `train.csv` (100 rows) and `val.csv` (20 rows)."""
    folder = tmp_path_factory.mktemp("inputs")
    small_encoder(folder / "encoder")
    table(folder / "train.csv", 100)
    table(folder / "val.csv", 20)
    return folder


@pytest.fixture
def argv(inputs: Path):
    """Command line of a run in a save folder: `argv(folder, *more flags)`."""
    return lambda save_dir, *more: command(
        save_dir, inputs / "encoder", inputs / "train.csv", inputs / "val.csv", *more
    )
