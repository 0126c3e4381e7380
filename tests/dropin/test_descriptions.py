"""The keywords for descriptions that OCCPAST's data set has."""

import warnings

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader

from histocc import OccDatasetMixerInMemMultipleFiles
from histocc.errors import UsageError
from histocc.formatter import construct_general_purpose_formatter
from histocc.utils import load_descriptions_from_csv, load_descriptions_from_dict

KEY = {"01": 0, "2": 1, "3": 2}
CALM = {"alt_prob": 0.0, "unk_lang_prob": 0.0, "description_prob": 1.0, "include_descriptions": True}
TEXTS = {"01": "Fanger fisk", "3": "Smithy"}


@pytest.fixture
def make(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,a\nfisker,da,01\nhunter,en,2\nsmed,da,3\n", encoding="utf-8")
    formatter = construct_general_purpose_formatter(2, ["a"])

    def make(cls=OccDatasetMixerInMemMultipleFiles, **options):
        options = {"target_cols": ["a"], "map_code_label": KEY, **CALM, **options}
        return cls([path], formatter, None, 64, 3, **options)

    return make


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("code,text,lang\n01,Fanger fisk,da\n01,Catches fish,en\n3,Smithy,en\n", encoding="utf-8")
    return path


def texts(dataset):
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    ids = dataset.batch(np.arange(3), 0)["input_ids"].tolist()
    assert ["".join(map(chr, row[1 : row.index(0xE001)])) for row in ids] == batch["occ1"]
    return [text.partition("[SEP]")[2] for text in batch["occ1"]]


DESCRIBED = ["fisker [DESC: Fanger fisk", "hunter", "smed [DESC: Smithy"]  # brackets at the ends are stripped


def test_a_file(make, file):
    columns = {"descriptions_file": file, "descriptions_code_col": "code", "descriptions_text_col": "text"}
    dataset = make(**columns, descriptions_lang_col="lang")
    assert texts(dataset) == DESCRIBED
    assert dataset.descriptions_multilingual
    assert dataset.descriptions["01"] == {"da": "Fanger fisk", "en": "Catches fish"}
    assert not make(**columns).descriptions_multilingual
    assert texts(make(**columns, include_descriptions=False)) == ["fisker", "hunter", "smed"]
    assert texts(make(**columns, training=False)) == ["fisker", "hunter", "smed"]
    with pytest.raises(UsageError, match="--descriptions-code-col"):
        make(descriptions_file=file)


def test_what_the_helpers_give(make, file):
    assert texts(make(descriptions=load_descriptions_from_csv(file, "code", "text"))) == DESCRIBED
    assert texts(make(descriptions=load_descriptions_from_csv(file, "code", "text", "lang"))) == DESCRIBED
    assert texts(make(descriptions=load_descriptions_from_dict(TEXTS))) == DESCRIBED
    dataset = make(descriptions=TEXTS, description_template="{desc}: {occ}")
    assert texts(dataset) == ["Fanger fisk: fisker", "hunter", "Smithy: smed"]
    assert dict(dataset.descriptions) == TEXTS


def test_a_frame(make, file):
    columns = {"descriptions_code_col": "code", "descriptions_text_col": "text", "descriptions_lang_col": "lang"}
    assert texts(make(descriptions=pd.read_csv(file, dtype=str), **columns)) == DESCRIBED
    with pytest.raises(UsageError, match="descriptions_code_col and descriptions_text_col"):
        make(descriptions=pd.read_csv(file, dtype=str))
    with pytest.raises(UsageError, match="table of descriptions has no columns 'code', 'text', 'lang'"):
        make(descriptions=pd.DataFrame({"x": ["1"]}), **columns)


def test_without_any_there_is_a_warning_and_training_goes_on(make):
    with pytest.warns(UserWarning, match="include_descriptions is on, but there are no descriptions"):
        dataset = make()
    assert texts(dataset) == ["fisker", "hunter", "smed"]
    assert dataset.descriptions is None


def test_descriptions_of_other_codes_are_noticed(make):
    with pytest.warns(UserWarning, match="None of the codes that have a description, such as '1', occurs in the data"):
        make(descriptions={"1": "Fanger fisk"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(descriptions=TEXTS)


def test_a_share_of_the_rows(make):
    dataset = make(descriptions=TEXTS, description_prob=0.5)
    seen = [dataset[0]["occ1"] == "da[SEP]fisker" for _ in range(400)]
    assert sum(seen) == pytest.approx(200, abs=50)


def test_settings_may_change_later(make):
    dataset = make(include_descriptions=False)
    dataset.descriptions = TEXTS
    assert texts(dataset) == ["fisker", "hunter", "smed"]
    dataset.include_descriptions = True
    assert texts(dataset) == DESCRIBED
    dataset.description_template = "{occ}/{desc}"
    assert texts(dataset) == ["fisker/Fanger fisk", "hunter", "smed/Smithy"]
    dataset.description_prob = 0.0
    assert texts(dataset) == ["fisker", "hunter", "smed"]
    assert (dataset.description_prob, dataset.description_template) == (0.0, "{occ}/{desc}")
    with pytest.raises(UsageError, match=r"must lie in 0\.\.1"):
        dataset.description_prob = 2
    with pytest.raises(UsageError, match="cannot be filled in"):
        dataset.description_template = "{x}"
    with pytest.raises(UsageError, match="description of '01' is 7"):
        dataset.descriptions = {"01": 7}


def test_parts_may_be_overridden(make):
    class Loud(OccDatasetMixerInMemMultipleFiles):
        def _get_primary_description(self, record):
            found = super()._get_primary_description(record)
            return found and found.upper()

        def _load_descriptions(self, *args, **options):
            assert args[0] is None
            return super()._load_descriptions(TEXTS)

    dataset = make(Loud)
    assert texts(dataset) == ["fisker [DESC: FANGER FISK", "hunter", "smed [DESC: SMITHY"]
    assert dataset._get_primary_description(dataset._get_record(1)) is None


def test_the_frame_decides_which_description(make):
    dataset = make(descriptions=TEXTS)
    dataset.frame.loc[1, "a"] = "3"
    assert texts(dataset)[1] == "hunter [DESC: Smithy"
