import pandas as pd
import pytest

import histocc.utils
from histocc.errors import UsageError
from histocc.utils import (
    add_descriptions_to_dataframe,
    create_code_to_description_mapping,
    format_input_with_description,
    get_description,
    get_hisco_description,
    load_descriptions_from_csv,
    load_descriptions_from_dataframe,
    load_descriptions_from_dict,
    load_hisco_descriptions,
)
from histocc.utils import descriptions as module

TABLE = "code,text,lang\n01110,Chemist,en\n01110,Kemiker,da\n01110,later,en\n5,Five,en\n6, ,en\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_from_a_file(file):
    assert load_descriptions_from_csv(file, "code", "text") == {"01110": "Chemist", "5": "Five"}
    by_language = load_descriptions_from_csv(filepath=file, code_col="code", desc_col="text", lang_col="lang")
    assert by_language == {"01110": {"en": "Chemist", "da": "Kemiker"}, "5": {"en": "Five"}}
    with pytest.raises(UsageError, match="no column 'codes'"):
        load_descriptions_from_csv(file, "codes", "text")


def test_from_a_file_in_another_encoding(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("code,text\n01,Gårdejer\n", encoding="latin-1")
    assert load_descriptions_from_csv(path, "code", "text", encoding="latin-1") == {"01": "Gårdejer"}
    with pytest.raises(UsageError, match="not in UTF-8"):
        load_descriptions_from_csv(path, "code", "text")
    with pytest.raises(UsageError, match="cannot be read as CSV in no-such"):
        load_descriptions_from_csv(path, "code", "text", encoding="no-such")


def test_from_a_frame():
    frame = pd.DataFrame({"c": [61110, 62105, 3], "d": ["Farmer", None, "Three"], "l": ["en", "en", "da"]})
    assert load_descriptions_from_dataframe(frame, "c", "d") == {"61110": "Farmer", "3": "Three"}
    assert load_descriptions_from_dataframe(df=frame, code_col="c", desc_col="d", lang_col="l")["3"] == {"da": "Three"}
    with pytest.raises(UsageError, match="no column 'x'"):
        load_descriptions_from_dataframe(frame, "c", "x")
    with pytest.raises(UsageError, match="table of descriptions is blank"):
        load_descriptions_from_dataframe(frame.iloc[[1]], "c", "d")


def test_from_a_dictionary():
    found = load_descriptions_from_dict({61110: "Farmer", 5.0: "Five", "x": " ", "y": None})
    assert found == {"61110": "Farmer", "5": "Five"}
    assert load_descriptions_from_dict({"a": {"en": "A", "da": ""}}) == {"a": {"en": "A"}}
    with pytest.raises(UsageError, match="description of '1' is 7, but must be a text"):
        load_descriptions_from_dict({1: 7})


def test_looking_up():
    texts = {"1": "One", "2": {"da": "To", "en": "Two"}, "3": {"da": "Tre"}}
    assert [get_description(code, texts) for code in ("1", 2, 3.0, "4")] == ["One", "Two", "Tre", ""]
    assert get_description(code="4", descriptions=texts, default="?") == "?"


@pytest.mark.parametrize("code", ["01110", "1110", 1110, 1110.0])
@pytest.mark.parametrize("texts", [{"01110": "Chemist"}, {"1110": "Chemist"}])
def test_hisco_codes_in_any_spelling(code, texts):
    assert get_hisco_description(code, texts) == "Chemist"


def test_hisco_codes_without_a_description():
    assert get_hisco_description("99999", {"1110": "Chemist"}) == "Unknown occupation"
    assert get_hisco_description(hisco_code=-1, descriptions={"-1": "None"}, default="") == "None"
    assert get_hisco_description("61110") == "Unknown occupation"


def test_joining():
    texts = {"61110": "General Farmer"}
    assert format_input_with_description("gårdmand", 61110, texts) == "gårdmand [DESC: General Farmer]"
    assert format_input_with_description("gårdmand", 1, texts) == "gårdmand"
    joined = format_input_with_description(
        occ_text="x", hisco_code="61110", descriptions=texts, format_template="{desc}: {occ}"
    )
    assert joined == "General Farmer: x"
    with pytest.raises(UsageError, match="cannot be filled in"):
        format_input_with_description("x", "61110", texts, "{nonsense}")


def test_a_column_of_descriptions():
    table = pd.DataFrame({"hisco_1": [61110, 5, None]})
    found = add_descriptions_to_dataframe(table, descriptions={"61110": "Farmer"})
    assert found["hisco_description"].tolist() == ["Farmer", "", ""]
    assert list(table.columns) == ["hisco_1"]
    with pytest.raises(UsageError, match="The table has no column 'hisco'"):
        add_descriptions_to_dataframe(table, hisco_column="hisco")


@pytest.mark.parametrize("load", [load_hisco_descriptions, create_code_to_description_mapping])
def test_titles_that_do_not_ship_are_said_to_be_missing(load):
    with pytest.raises(UsageError, match=r"do not come with this package.*load_descriptions_from_csv"):
        load()


def test_names_stand_in_utils_too():
    assert histocc.utils.get_description is module.get_description
