"""One run at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from histocc.errors import UsageError
from histocc.files.lock import locked_folder, locks_stay_on_this_machine
from tests.running import Running


def hold(folder: str, child: bool = False) -> int:
    """Target: hold a folder for ever, perhaps with a child that would inherit what can be inherited."""
    with locked_folder(folder, "--save-dir"):
        if child and os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        print("held", flush=True)
        time.sleep(60)
    return 0


def taken(folder: Path, pid: str = r"\d+") -> str:
    return (
        rf"--save-dir {re.escape(str(folder))}: another run is at work in this folder: process {pid} on "
        rf"{re.escape(socket.gethostname())}, started \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d.*\. Let it end or stop it, or "
        "give another folder"
    )


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    folder = tmp_path / "a" / "run"
    first = Running(hold, str(folder), log=tmp_path / "first")
    first.wait_for("held")
    with pytest.raises(UsageError, match=taken(folder, str(first.pid))), locked_folder(folder, "--save-dir"):
        pass
    first.signal(signal.SIGKILL)
    first.wait()
    with locked_folder(folder, "--save-dir"):
        assert [path.name for path in folder.iterdir()] == [".lock"]
        (folder / "file").touch()
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_children_of_a_killed_process_hold_nothing(tmp_path):
    first = Running(hold, str(tmp_path / "run"), True, log=tmp_path / "first")
    first.wait_for("held")
    (child,) = first.children()
    first.signal(signal.SIGKILL)
    first.wait()
    try:
        os.kill(child, 0)
        with locked_folder(tmp_path / "run", "--save-dir"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_folders_that_were_made_for_nothing_are_removed(tmp_path):
    (tmp_path / "there").mkdir()
    with locked_folder(tmp_path / "there" / "a" / "b", "--save-dir"):
        assert (tmp_path / "there" / "a" / "b").is_dir()
    assert not list((tmp_path / "there").iterdir())
    with locked_folder(tmp_path / "there", "--save-dir"):
        pass
    assert (tmp_path / "there").is_dir()


def test_a_lock_that_vanishes_while_it_is_taken_is_taken_again(tmp_path, monkeypatch):
    """The run before removes its file between our opening it and our locking it."""
    lock, seen = fcntl.lockf, []

    def slow(descriptor, how):
        if not seen:
            (tmp_path / ".lock").unlink()
        seen.append(descriptor)
        return lock(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", slow)
    with locked_folder(tmp_path, "--save-dir"):
        assert (tmp_path / ".lock").exists()
    assert len(seen) == 2


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with locked_folder(tmp_path, "--save-dir"):
        pass
    assert capsys.readouterr().err == (
        f"Warning: {tmp_path} cannot be locked (No locks available): a second run in it would not be noticed\n"
    )


@pytest.mark.parametrize("what", ["folder", "link"])
def test_something_else_in_the_place_of_the_lock_is_named(what, tmp_path):
    if what == "folder":
        (tmp_path / ".lock").mkdir()
    else:
        (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"\.lock cannot be opened"), locked_folder(tmp_path, "--save-dir"):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("mounted", "stay"),
    [
        ("36 35 0:31 / /data rw shared:1 - nfs4 server:/x rw,vers=4.2,local_lock=none", False),
        ("36 35 0:31 / /data rw shared:1 - nfs server:/x rw,vers=3,nolock", True),
        ("36 35 0:31 / /data rw shared:1 - nfs server:/x rw,vers=3,local_lock=all", True),
        ("36 35 0:31 / /data rw,localflock - lustre x@tcp:/y rw", True),
        ("36 35 0:31 / /data rw - fuse.sshfs host: rw", True),
        ("36 35 0:31 / /elsewhere rw - nfs server:/x rw,nolock", False),
        ("36 35 8:1 / /data rw - ext4 /dev/sda1 rw", False),
        ("36 35 0:31 / / rw - nfs server:/x rw,nolock\n37 36 8:1 / /data rw - ext4 /dev/sda1 rw", False),
        ("nonsense", False),
    ],
)
def test_locks_that_stay_on_one_machine_are_known_by_the_mount(mounted, stay):
    assert locks_stay_on_this_machine(Path("/data/runs/a"), mounted) is stay
