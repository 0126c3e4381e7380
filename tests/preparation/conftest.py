from __future__ import annotations

import csv

import pytest

from histocc.formatter import construct_general_purpose_formatter


@pytest.fixture
def write_csv(tmp_path):
    """Write rows (the first is the header) to a CSV file."""

    def write(rows, name="table.csv"):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        return path

    return write


@pytest.fixture
def read_csv():
    """The rows of a CSV file, header first."""

    def read(path):
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.reader(file))

    return read


@pytest.fixture
def formatter():
    """One column of five-character codes."""
    return construct_general_purpose_formatter(5, ["hisco_1"])


@pytest.fixture
def formatter3():
    """Three columns of five-character codes."""
    return construct_general_purpose_formatter(5, ["c1", "c2", "c3"])
