"""The record of what a run says: whole, appended, and never a reason to end."""

from __future__ import annotations

import errno
import os
import re

import pytest

from histocc.files import console


@pytest.fixture(autouse=True)
def no_record_stays():
    yield
    console.end_record()


def lines_of(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("---")]


def test_a_record_has_what_was_said_before_and_after_it_got_a_file(tmp_path, capsys):
    path = tmp_path / "run.log"
    console.say("never kept")
    for session in ("first", "second"):
        console.begin_record()
        console.say(f"{session} å\nsecond line")
        console.record_in(path)
        console.warn("a warning")
        console.complain("Error: \udcff")
        console.end_record()
    console.say("after the end")
    one = ["å\nsecond line", "Warning: a warning", "Error: \\udcff"]
    assert lines_of(path) == "\n".join([f"first {one[0]}", *one[1:], f"second {one[0]}", *one[1:]]).splitlines()
    assert re.findall(r"^--- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ---$", path.read_text(), re.MULTILINE)
    assert capsys.readouterr().out.startswith("never kept\nfirst å\n")


def test_without_a_file_nothing_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    console.begin_record()
    console.say("a start that fails")
    console.end_record()
    console.record_in(tmp_path / "run.log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda path: path.mkdir(), "run.log is a folder"),
        (lambda path: os.mkfifo(path), "run.log is a pipe"),
        (lambda path: path.symlink_to("/dev/full"), "run.log is a device"),
        (lambda path: path.symlink_to("gone"), "run.log is a link to gone, which is not there"),
    ],
    ids=["folder", "pipe", "device", "link"],
)
def test_what_is_no_file_is_said_once_and_nothing_else_happens(make, fault, tmp_path, capsys):
    make(tmp_path / "run.log")
    console.begin_record()
    console.record_in(tmp_path / "run.log")
    console.say("a line")
    captured = capsys.readouterr()
    assert captured.out == "a line\n"
    assert captured.err.startswith("Warning: ")
    assert f"{fault}, so that it lacks lines of this run; everything else goes on\n" in captured.err
    assert captured.err.count("\n") == 1


def test_a_disk_that_is_full_for_a_while_is_said_once(tmp_path, capsys, monkeypatch):
    console.begin_record()
    console.record_in(tmp_path / "run.log")
    write, full = os.write, [True]

    def refuse(descriptor, data):
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    console.say("lost")
    console.say("lost too")
    full[0] = False
    console.say("there again")
    assert lines_of(tmp_path / "run.log") == ["there again"]
    err = capsys.readouterr().err
    assert err.count("run.log cannot be written to (No space left on device), so that it lacks lines") == 1
