"""Tables that ship with the package: the HISCO key and a sample of coded descriptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def raw_sample_path() -> Path:
    """The CSV file of the shipped raw table, as users of `finetune.py` have them (`occ1, lang, hisco_1, hisco_2`)."""
    return DATA_FOLDER / "sample_raw.csv"


def _keys() -> pd.DataFrame:
    import pandas as pd

    codes = [int(code) for code in _hisco_codes()]
    return pd.DataFrame({"hisco": codes, "code": range(len(codes))})


def _toydata() -> pd.DataFrame:
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
    return pd.concat(parts, ignore_index=True)


class _Datasets(Mapping[str, "pd.DataFrame"]):
    """Builds a table when it is asked for, a new one each time, so that callers may change theirs."""

    _loaders = {"keys": _keys, "toydata": _toydata}  # noqa: RUF012

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self._loaders[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)


DATASETS: Mapping[str, pd.DataFrame] = _Datasets()
"""`'keys'`: columns `hisco` (code as a number) and `code` (class index). `'toydata'`: both parts of the sample."""
