"""Fixtures that the whole suite shares."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.running import command, small_encoder, table

# Nothing in the tests may reach for a network; a missing file must fail at once, not after retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Models this small are slower on several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with the numbers computed by the original implementation."""
    return Path(__file__).parent / "golden"


@pytest.fixture
def tiny_canine_config():
    """A `CanineConfig` small enough for tests, without dropout."""
    from transformers import CanineConfig

    path = Path(__file__).parent / "golden" / "trajectories" / "encoder_config.json"
    return CanineConfig(**json.loads(path.read_text()))


@pytest.fixture(scope="session")
def tiny_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny encoder of random weights, as `--encoder` takes it."""
    import torch
    from transformers import CanineConfig, CanineModel

    path = Path(__file__).parent / "golden" / "trajectories" / "encoder_config.json"
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    CanineModel(CanineConfig(**json.loads(path.read_text()))).save_pretrained(folder)
    return folder


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
