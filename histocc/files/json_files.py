"""JSON files, which know neither NaN nor infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histocc.files.atomic import write_atomically


def json_text(value: Any) -> str:
    """A value as JSON; a number that is none (NaN, infinity) is null."""
    return json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, the file whole or not at all. Raises OSError where that cannot be done."""
    # A name from a file system may hold bytes that are no letters.
    text = json_text(value).encode("utf-8", "backslashreplace")
    write_atomically(path, lambda file: file.write(text))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
