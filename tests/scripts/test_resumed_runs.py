"""What a resumed run says, stores and refuses."""

import csv
import json
import signal

import pytest
import torch

import train
import train_mixer
from histocc.datasets import hisco_codes
from histocc.stored_model import load_stored_model
from tests.running import Running, start_ranks
from tests.running import script as mixer

FEW_STEPS = ["--batch-size", "4", "--max-len", "32", "--log-interval", "1", "--eval-interval", "2"]


@pytest.fixture
def arguments(tmp_path, hisco_table, tiny_encoder_folder):
    """A complete command line for a short run in `tmp_path / 'run'`; of 8 training rows, 2 steps an epoch."""
    return [
        *("--save-dir", str(tmp_path / "run")),
        *("--train-data", str(hisco_table("train.csv"))),
        *("--val-data", str(hisco_table("val.csv"))),
        *("--encoder", str(tiny_encoder_folder)),
        *FEW_STEPS,
    ]


def outcome(capsys, argv, script=train_mixer):
    code = script.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def state(folder, name="last.bin"):
    return torch.load(folder / name, weights_only=True)


def test_what_is_shown_and_stored_is_what_is_in_force(arguments, tmp_path, capsys):
    """A rate that never ran must not come back as the checkpoint's, whatever the starts in between said."""
    outputs = []
    for steps, rate, seed in ((2, "2e-3", 5), (4, "1e-3", 6), (6, "2e-3", 5)):
        flags = ["--learning-rate", rate, "--seed", seed, "--max-steps", steps]
        code, out, err = outcome(capsys, [*arguments, *flags])
        assert code == 0, err
        outputs.append(out)
    assert "--learning-rate 0.001 differs from the checkpoint's 0.002; the checkpoint's is used" in outputs[1]
    assert f"give another --save-dir, with --initial-checkpoint {tmp_path / 'run' / 'last.bin'}" in outputs[1]
    assert "--seed 6 differs from the checkpoint's 5" in outputs[1]
    assert "differs" not in outputs[2].replace("--max-steps 6 differs", "")
    assert state(tmp_path / "run")["settings"]["learning_rate"] == 0.002
    shown = (tmp_path / "run" / "args.yaml").read_text()
    assert "learning_rate: 0.002\n" in shown
    assert "seed: 5\n" in shown


def test_the_names_of_train_py_say_the_rate_in_force(tmp_path, hisco_table, tiny_encoder_folder, capsys):
    (tmp_path / "data").mkdir()
    rows = hisco_table("rows.csv").read_text().splitlines()
    (tmp_path / "data" / "rows.csv").write_text("\n".join([rows[0], *rows[1:] * 5]) + "\n")
    argv = ["--train-data", tmp_path / "data", "--save-dir", tmp_path / "run", "--encoder", tiny_encoder_folder]
    argv += ["--batch-size", 16, "--max-len", 32]
    assert outcome(capsys, [*argv, "--epochs", 1, "--learning-rate", "2e-3"], train)[0] == 0
    assert outcome(capsys, [*argv, "--epochs", 2, "--learning-rate", "1e-3"], train)[0] == 0
    names = {path.name for path in (tmp_path / "run").glob("CheckpointCANINE*.bin")}
    assert names == {"CheckpointCANINE_Multilingual_CANINE_sample_size_10_lr_0.002_batch_size_16.bin"}


def test_a_rate_of_zero_evaluates_a_checkpoint_and_changes_nothing(arguments, tmp_path, capsys):
    assert outcome(capsys, [*arguments, "--max-steps", 2])[0] == 0
    weights = tmp_path / "run" / "last.bin"
    again = [*arguments, "--save-dir", tmp_path / "judged", "--initial-checkpoint", weights, "--learning-rate", "0"]
    assert outcome(capsys, [*again, "--max-steps", 1])[0] == 0
    before, after = state(tmp_path / "run"), state(tmp_path / "judged")
    for name, tensor in before["model"].items():
        assert torch.equal(after["model"][name], tensor), name
    losses = [
        float(list(csv.DictReader((tmp_path / folder / "logs.csv").open()))[-1]["val_loss"])
        for folder in ("run", "judged")
    ]
    assert losses[0] == losses[1]


def reordered(path):
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[::-1]]) + "\n")


@pytest.mark.parametrize(("steps", "again"), [(1, "epoch 0 begins again"), (2, "")])
def test_other_training_data_is_known_by_its_contents(arguments, hisco_table, capsys, steps, again):
    assert outcome(capsys, [*arguments, "--max-steps", steps])[0] == 0
    reordered(hisco_table("train.csv"))
    code, out, err = outcome(capsys, [*arguments, "--max-steps", 3])
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if "the training data is not what it was" in line]
    assert "still 8 rows, with other contents or in another order" in line
    assert line.endswith(again or ")")


def test_the_same_training_data_elsewhere_is_no_other(arguments, hisco_table, tmp_path, capsys):
    assert outcome(capsys, [*arguments, "--max-steps", 1])[0] == 0
    moved = hisco_table("train.csv").rename(tmp_path / "moved.csv")
    code, out, err = outcome(capsys, [*arguments, "--max-steps", 3, "--train-data", moved])
    assert code == 0, err
    assert "training data" not in out


def test_the_best_state_is_looked_for_again_where_the_loss_changes(arguments, tmp_path, capsys):
    """A loss that is mostly the decoder's is far above one that is mostly the flat head's."""
    assert outcome(capsys, [*arguments, "--max-steps", 2, "--seq2seq-weight", "0.0"])[0] == 0
    assert state(tmp_path / "run", "best.bin")["step"] == 2
    code, out, err = outcome(capsys, [*arguments, "--max-steps", 4, "--seq2seq-weight", "1.0"])
    assert code == 0, err
    assert "--seq2seq-weight changed, and with it what val_loss measures: the best state is looked for again" in out
    best = state(tmp_path / "run", "best.bin")
    rows = list(csv.DictReader((tmp_path / "run" / "logs.csv").open()))
    assert best["step"] == 4
    assert best["best_val_loss"] == float(rows[-1]["val_loss"]) > float(rows[0]["val_loss"])


def test_a_folder_of_another_kind_of_run_is_named(arguments, hisco_table, tmp_path, tiny_encoder_folder, capsys):
    assert outcome(capsys, [*arguments, "--max-steps", 1])[0] == 0
    rows = hisco_table("rows.csv").read_text().splitlines()
    many = tmp_path / "many.csv"
    many.write_text("\n".join([rows[0], *rows[1:] * 5]) + "\n")
    argv = ["--train-data", many, "--save-dir", tmp_path / "run", "--encoder", tiny_encoder_folder, "--max-len", 32]
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir())
    code, _, err = outcome(capsys, argv, train)
    assert code == 2
    assert err.count("\n") == 1
    assert "last.bin is from train_mixer.py or finetune.py (decoder and flat head), and cannot be resumed by" in err
    assert "Give another --save-dir; to start from its weights, name it with --initial-checkpoint there" in err
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir()) == before

    flat = ["--save-dir", tmp_path / "flat", "--epochs", 1, "--batch-size", 16]
    assert outcome(capsys, [*argv, *flat], train)[0] == 0
    code, _, err = outcome(capsys, [*arguments, "--save-dir", tmp_path / "flat"])
    assert code == 2
    assert "last.bin is from train.py (the flat classifier), and cannot be resumed by" in err


def test_three_differences_of_shape_are_named_at_most(arguments, capsys):
    assert outcome(capsys, [*arguments, "--max-steps", 1])[0] == 0
    code, _, err = outcome(capsys, [*arguments, "--max-steps", 2, "--decoder-dim-feedforward", 8])
    assert code == 2
    assert err.count(" there and ") == 3
    assert "and 6 more differences" in err


def test_a_model_is_rebuilt_from_its_checkpoint_alone(arguments, tmp_path, tiny_canine_config, capsys):
    assert outcome(capsys, [*arguments, "--max-steps", 1, "--decoder-dim-feedforward", 8])[0] == 0
    stored = load_stored_model(tmp_path / "run" / "best.bin")
    assert stored.system.name == "hisco"
    assert list(stored.system.codes) == hisco_codes()
    assert stored.system.columns == tuple(f"code{i}" for i in range(1, 6))
    assert (stored.settings.kind, stored.settings.max_len) == ("mixer", 32)
    assert stored.model.encoder.config.hidden_size == tiny_canine_config.hidden_size
    for name, tensor in state(tmp_path / "run", "best.bin")["model"].items():
        assert torch.equal(stored.model.state_dict()[name], tensor), name
    assert not stored.model.training


def test_the_best_flat_weights_are_tested_on_the_rows_set_aside(tmp_path, hisco_table, tiny_encoder_folder, capsys):
    rows = hisco_table("rows.csv").read_text().splitlines()
    many = tmp_path / "many.csv"
    many.write_text("\n".join([rows[0], *rows[1:] * 5]) + "\n")
    argv = ["--train-data", many, "--save-dir", tmp_path / "run", "--encoder", tiny_encoder_folder, "--max-len", 32]
    argv += ["--epochs", 3, "--batch-size", 16, "--model-name", "m", "--learning-rate", "1e-2"]
    code, out, err = outcome(capsys, argv, train)
    assert code == 0, err
    figures = json.loads((tmp_path / "run" / "test.json").read_text())
    assert f"On the {figures['rows']} rows set aside for testing the best weights have a loss of" in out
    assert f"and {100 * figures['test_acc']:.1f} % of the rows have exactly the right codes" in out
    # No accuracy in any epoch: the least loss decides, and it is not the first epoch's.
    logged = list(csv.DictReader((tmp_path / "run" / "logs.csv").open()))
    assert {float(row["val_acc"]) for row in logged} == {0.0}
    losses = [float(row["val_loss"]) for row in logged]
    assert min(losses) < losses[0]
    last = torch.load(tmp_path / "run" / "Checkpointm.bin", weights_only=True)
    best = torch.load(tmp_path / "run" / "m.bin", weights_only=True)
    is_last = losses.index(min(losses)) == len(losses) - 1
    assert all(torch.equal(best[name], last[name]) for name in last) == is_last


def test_a_folder_belongs_to_one_run_at_a_time(argv, tmp_path):
    folder = tmp_path / "run"
    first = Running(mixer, argv(folder, "--num-epochs", 1000), log=tmp_path / "first")
    first.wait_for("step 3 of")
    second = Running(mixer, argv(folder), log=tmp_path / "second")
    assert second.wait() == 2, second.output
    assert f"another run is at work in this folder: process {first.pid} on " in second.output
    assert second.output.count("\n") == 1
    first.signal(signal.SIGKILL)
    first.wait()
    # Nothing of it is left that would keep the next start out.
    third = Running(mixer, argv(folder, "--max-steps", 5), log=tmp_path / "third")
    assert third.wait() == 0, third.output
    assert not (folder / ".lock").exists()


def test_two_processes_of_one_run_hold_the_folder_together(argv, tmp_path):
    folder = tmp_path / "run"
    ranks = start_ranks(mixer, argv(folder, "--num-epochs", 1000), world_size=2, folder=tmp_path)
    ranks[0].wait_for("step 1 of")
    (tmp_path / "others").mkdir()
    others = start_ranks(mixer, argv(folder, "--num-epochs", 1000), world_size=2, folder=tmp_path / "others")
    assert others[0].wait() == 2
    assert others[1].wait() > 0
    assert f"another run is at work in this folder: process {ranks[0].pid} on " in others[0].output
    assert "Error: " not in others[1].output
    ranks[0].signal(signal.SIGTERM)
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert not (folder / ".lock").exists()
