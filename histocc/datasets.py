"""Tables that ship with the package: the HISCO key and a sample of coded descriptions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

DATA_FOLDER = Path(__file__).parent / "Data"
CODE_COLUMNS = tuple(f"code{i}" for i in range(1, 6))


def hisco_codes() -> list[str]:
    """All 1,919 HISCO codes as text, in the order of their class indices (`-3`, `-2`, `-1`, `01110`, ...)."""
    return list(_hisco_codes())


@lru_cache(maxsize=1)
def _hisco_codes() -> tuple[str, ...]:
    return tuple((DATA_FOLDER / "hisco_codes.txt").read_text(encoding="utf-8").split())


def sample_paths() -> tuple[Path, Path]:
    """The CSV files of the shipped sample: training, validation (columns `occ1, lang, code1..code5`)."""
    return DATA_FOLDER / "sample_train.csv", DATA_FOLDER / "sample_val.csv"


def two_codes_path() -> Path:
    """The CSV file of more training rows, all of two titles joined, in the layout of the sample."""
    return DATA_FOLDER / "sample_two_codes.csv"


def raw_sample_path() -> Path:
    """The CSV file of the shipped raw table, as users of `finetune.py` have them (`occ1, lang, hisco_1, hisco_2`)."""
    return DATA_FOLDER / "sample_raw.csv"


def _load_keys() -> pd.DataFrame:
    """The HISCO key: `hisco`, each code as a number, and `code`, its class index; both int64."""
    import pandas as pd

    codes = [int(code) for code in _hisco_codes()]
    return pd.DataFrame({"hisco": codes, "code": range(len(codes))})


def _load_toydata() -> pd.DataFrame:
    """Both parts of the shipped sample.

    Returns
    -------
    pandas.DataFrame
        `occ1` and `lang`, text; `code1` .. `code5`, class indices, Int64, missing ones `<NA>`; `hisco_1`, the first
        code as a number, as the key has it, int64.
    """
    import pandas as pd

    parts = [
        pd.read_csv(
            path,
            usecols=["occ1", "lang", *CODE_COLUMNS],
            dtype={"occ1": str, "lang": str} | dict.fromkeys(CODE_COLUMNS, "Int64"),
            # Only code columns have missing values: a description spelt "nan" is a word.
            keep_default_na=False,
            na_values={column: [""] for column in CODE_COLUMNS},
        )
        for path in sample_paths()
    ]
    toydata = pd.concat(parts, ignore_index=True)
    toydata["hisco_1"] = _load_keys()["hisco"].to_numpy()[toydata["code1"].to_numpy(dtype="int64")]
    return toydata


DATASETS: dict[str, Callable[[], pd.DataFrame]] = {"keys": _load_keys, "toydata": _load_toydata}
"""Functions without arguments, each giving a new table: `DATASETS['keys']()`, `DATASETS['toydata']()`."""
