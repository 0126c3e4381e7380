"""Data that scripts written for the original would bring."""

import pytest
import torch

from histocc import OccDatasetMixerInMemMultipleFiles, load_tokenizer
from histocc.formatter import hisco_blocky5


@pytest.fixture(autouse=True)
def seeded():
    """The same noise in every run of the tests."""
    torch.manual_seed(0)


HEADER = "occ1,lang,code1,code2,code3,code4,code5"


@pytest.fixture
def same_rows_csv(tmp_path):
    """64 rows with the same text: what tells them apart is noise."""
    path = tmp_path / "same.csv"
    path.write_text("\n".join([HEADER, *["blacksmith and farmer,en,5,,,,"] * 64]), encoding="utf-8")
    return path


@pytest.fixture
def rows_csv(golden):
    """45 rows of all kinds."""
    return golden / "dataset_rows.csv"


@pytest.fixture(scope="session")
def tokenizer():
    """CANINE's; one, since it takes seconds to be made."""
    return load_tokenizer("Multilingual_CANINE")


@pytest.fixture
def make_dataset(tokenizer):
    """The data set as such scripts make it."""

    def make(path, cls=OccDatasetMixerInMemMultipleFiles, formatter=None, **options):
        return cls(
            fnames_data=[str(path)],
            formatter=formatter or hisco_blocky5(),
            tokenizer=tokenizer,
            max_input_len=64,
            num_classes_flat=1919,
            **options,
        )

    return make
