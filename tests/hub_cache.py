"""The local cache of the Hugging Face hub, laid out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"


def cached_repository(cache: Path, name: str) -> Path:
    """The folder of a repository's files, laid out as huggingface_hub does."""
    repository = cache / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return snapshot


def use_cache(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Have this process look into a cache of ours."""
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / "hub"))
    # Older versions of transformers have read the place once for all.
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(cache / "hub"), raising=False)
