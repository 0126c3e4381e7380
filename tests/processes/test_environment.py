"""What the environment says of the processes of a run."""

import pytest

from histocc.errors import UsageError
from histocc.processes.distributed import local_world_size


@pytest.mark.parametrize(("text", "number"), [(None, 1), ("0", 1), ("8", 8)])
def test_processes_on_this_machine(text, number, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if text is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
    assert local_world_size() == number


def test_a_number_of_processes_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4(x2)")  # as Slurm writes some of its own
    with pytest.raises(UsageError, match=r"LOCAL_WORLD_SIZE=4\(x2\), which is not a whole number"):
        local_world_size()
