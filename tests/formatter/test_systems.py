"""Coding systems, and how they come back from plain values."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

import train_mixer
from histocc.errors import UsageError
from histocc.formatter import CodingSystem, Formatter, coding_system, general_system
from histocc.formatter.systems import SYSTEMS

OWN = {
    "letters": general_system(3, ["a", "b"], key={"x1": 1, "y": 0}),
    "parts": general_system(4, ["pst"], use_within_block_sep=True, key={"1,13,0,0": 0}),
    "alphabet": general_system(2, ["c"], chars=["α", "β"]),
}


@pytest.mark.parametrize("system", [*(make() for make in SYSTEMS.values()), *OWN.values()], ids=[*SYSTEMS, *OWN])
def test_a_system_comes_back_from_plain_values(system):
    again = CodingSystem.from_plain(json.loads(json.dumps(system.to_plain())))
    assert (again.name, again.columns, again.codes, again.key) == (
        system.name,
        system.columns,
        system.codes,
        system.key,
    )
    assert isinstance(again.formatter, Formatter)
    assert type(again.formatter) is type(system.formatter)
    assert again.formatter.num_classes == system.formatter.num_classes
    code = (system.codes or [getattr(system.formatter, "example", "α")])[-1]
    tokens = system.formatter.transform_label(code)
    assert np.array_equal(again.formatter.transform_label(code), tokens)
    assert again.formatter.clean_pred(tokens) == code


def test_codes_stand_in_the_order_of_their_classes():
    assert OWN["letters"].codes == ("y", "x1")
    assert OWN["letters"].key == {"y": 0, "x1": 1}


def test_isco68_has_five_digits_and_classes_of_the_data():
    system = coding_system("isco68")
    assert system.columns == ("isco68_1", "isco68_2")
    assert system.codes is None
    assert system.with_key({"06110": 0}).num_classes == 1
    with pytest.raises(ValueError, match="the codes of the system 'isco68' are not known yet"):
        _ = system.num_classes
    with pytest.raises(ValueError, match=r"'0-61.10' is not an ISCO-68 code: write five digits, with leading zeros"):
        system.formatter.encode_block("0-61.10")


def test_an_unknown_system_is_named():
    with pytest.raises(UsageError, match="there is no coding system 'hsico': choose one of hisco, occ1950, isco68"):
        coding_system("hsico")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "hsico"}, "there is no coding system 'hsico'"),
        ({"columns": "code"}, "TypeError: a list of texts is needed, not 'code'"),
        ({"codes": [1, 2]}, r"TypeError: a list of texts is needed, not \[1, 2\]"),
        ({"codes": ["a", "a"]}, "a code has two classes"),
        ({"block_size": 10**9}, "a block size is a whole number from 1 to 128, not 1000000000"),
        ({"block_size": True}, "a block size is a whole number from 1 to 128, not True"),
        ({"characters": ["α", "α"]}, "duplicate characters"),
        ({"columns": []}, "at least one column name"),
    ],
)
def test_plain_values_that_describe_no_system_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        CodingSystem.from_plain({**OWN["letters"].to_plain(), **change})


def test_an_entry_that_is_missing_is_named():
    plain = OWN["letters"].to_plain()
    del plain["within_block_separator"]
    with pytest.raises(UsageError, match="KeyError: 'within_block_separator'"):
        CodingSystem.from_plain(plain)


def test_a_system_is_added_as_the_guide_says(monkeypatch):
    guide = (Path(__file__).parents[2] / "docs" / "development.md").read_text(encoding="utf-8")
    steps = re.findall(r"^   ```python\n(.*?)^   ```", guide, flags=re.DOTALL | re.MULTILINE)
    names = {"_fixed": lambda name, formatter, codes: CodingSystem(name, formatter, formatter.row_columns, codes)}
    exec(textwrap.dedent(steps[0]), names)
    (make,) = eval("{" + textwrap.dedent(steps[1]) + "}", names).values()
    monkeypatch.setitem(SYSTEMS, "trades", make)
    assert train_mixer.build_parser().parse_args(["--formatter", "trades"]).formatter == "trades"
    test_a_system_comes_back_from_plain_values(coding_system("trades").with_key({"0611": 0}))
    test_a_system_comes_back_from_plain_values(coding_system("trades"))
