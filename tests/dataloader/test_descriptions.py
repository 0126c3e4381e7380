import pytest

from histocc.dataloader import Descriptions
from histocc.errors import UsageError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("c,t,l\n01,Fisher,en\n01,Fisker,da\n01,later,en\n02,Jæger,da\n03,,en\n", encoding="utf-8")
    return path


def test_looked_up_by_language_then_english_then_any(table):
    descriptions = Descriptions.read(table, "c", "t", "l")
    assert descriptions.find("01", "da") == "Fisker"
    assert descriptions.find("01", "se") == "Fisher"
    assert descriptions.find("02", "se") == "Jæger"
    assert descriptions.find("03", "en") is None
    assert descriptions.join("aal", "02", "da") == "aal [DESC: Jæger]"
    assert descriptions.join("aal", "99", "da") == "aal"


def test_without_a_language_column_the_first_description_counts(table):
    descriptions = Descriptions.read(table, "c", "t", template="{desc}: {occ}")
    assert descriptions.join("aal", "01", "da") == "Fisher: aal"


def test_what_is_wrong_is_said(table, tmp_path):
    with pytest.raises(UsageError, match=r"--descriptions-code-col(.|\n)*--descriptions-text-col"):
        Descriptions.read(table, None, None)
    with pytest.raises(UsageError, match="no column 'x'"):
        Descriptions.read(table, "x", "t")
    with pytest.raises(UsageError, match=r"There is no file .*absent\.csv \(see --descriptions-file"):
        Descriptions.read(tmp_path / "absent.csv", "c", "t")
    with pytest.raises(UsageError, match=r"1\.5, but must lie in 0\.\.1"):
        Descriptions.read(table, "c", "t", prob=1.5)
    for template in ("{occupation}", "{occ", "{}", "{occ.x}"):
        with pytest.raises(UsageError, match="--description-template"):
            Descriptions.read(table, "c", "t", template=template)
    blank = tmp_path / "blank.csv"
    blank.write_text("c,t\n01,\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no description"):
        Descriptions.read(blank, "c", "t")
