"""The benchmark of the flat classifier runs, and both paths agree on the same texts."""

import pytest

from tests.benchmarks import flat_step


def test_both_paths_agree(capsys):
    output, gradient = flat_step.main(["--batch-size", "16", "--steps", "2"])
    # Single precision, sums of some hundred terms; on other texts the logits would differ by 1e-3 and more.
    assert output < 1e-5
    assert gradient < 1e-4
    assert "times" in capsys.readouterr().out


def test_a_single_step_is_refused(capsys):
    with pytest.raises(SystemExit):
        flat_step.main(["--steps", "1"])
    assert "--steps must be at least 2" in capsys.readouterr().err
