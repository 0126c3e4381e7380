"""`train.py` as people call it: a run, an interrupted run, several processes, and what is refused."""

import csv
import json
import math
import signal
from functools import partial

import pandas as pd
import pytest
import torch

import train
from histocc.datasets import hisco_codes, sample_paths
from histocc.model_assets import CANINEOccupationClassifier, load_model_from_checkpoint
from histocc.runs.options import FlatOptions
from histocc.trainer import AugmentationSwitch
from tests.running import Running, small_encoder, start_ranks
from tests.scripts.shown import check_unseen

HEADER = "occ1,lang,code1,code2,code3,code4,code5"
ROWS = 60  # 57 to train on, 8 steps an epoch


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return small_encoder(tmp_path_factory.mktemp("flat-encoder"))


@pytest.fixture
def folder(tmp_path):
    """A folder of training data: two files, 60 rows of which the last class occurs too."""
    words = ["smith", "baker", "farm hand", "clerk at the railway", "cooper and innkeeper"]
    lines = [
        f"{words[i % 5]} {i},en,{(0, 700, 1306, 1918, 455)[i % 5]},{'9' if i % 7 == 0 else ''},,," for i in range(ROWS)
    ]
    path = tmp_path / "data"
    path.mkdir()
    for name, part in (("a", lines[:40]), ("b", lines[40:])):
        (path / f"{name}.csv").write_text("\n".join([HEADER, *part]) + "\n")
    return path


@pytest.fixture
def arguments(folder, encoder):
    def of(save_dir, *more):
        argv = ["--train-data", folder, "--save-dir", save_dir, "--encoder", encoder, "--model-name", "m"]
        argv += ["--batch-size", 8, "--epochs", 3, "--max-len", 48, "--learning-rate", 1e-2, "--log-interval", 1]
        return [str(part) for part in (*argv, *more)]

    return of


def outcome(capsys, argv):
    code = train.main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def script(argv):
    return train.main(argv)


def slow_script(argv):
    """Target: the script, with steps slow enough to be killed between two of them."""
    import time

    from histocc.training.loop import TrainingLoop

    after_step = TrainingLoop._after_step

    def pause(self, epoch_ended):
        after_step(self, epoch_ended)
        time.sleep(0.1)

    TrainingLoop._after_step = pause
    return train.main(argv)


def figures(save_dir):
    """Per epoch what must not depend on how a run was interrupted."""
    names = ("epoch", "step", "train_loss", "train_acc", "val_loss", "val_acc", "augmented", "lr")
    return [[row[name] for name in names] for row in csv.DictReader((save_dir / "logs.csv").open())]


def weights(path):
    return torch.load(path, weights_only=True)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_run_leaves_weights_that_load_as_ever(arguments, tmp_path, capsys):
    code, out, err = outcome(capsys, arguments(tmp_path / "run"))
    assert code == 0, err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *(
            "24.bin",
            "last.bin",
            "m.bin",
            "Checkpointm.bin",
            "m.png",
            "m_tokenizer",
            "logs.csv",
            "logs_by_group.csv",
            "metrics",
            "report.html",
            "README.md",
            "run.json",
            "args.yaml",
            "run.log",
            "test.json",
        ),
    }
    metrics = json.loads((tmp_path / "run" / "metrics" / "24.json").read_text())
    assert list(metrics["heads"]) == ["flat"]
    assert metrics["heads"]["flat"]["exact_set_acc"] == pytest.approx(100 * metrics["val_acc"])
    assert sum(group["rows"] for group in metrics["heads"]["flat"]["by_description"].values()) == 1
    assert metrics["mistakes"]["head"] == "flat"
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Step 24 of 24" in report
    assert "By language – flat head" in report
    card = (tmp_path / "run" / "README.md").read_text()
    assert "test rows: 2" in card
    assert "| flat head | 1 |" in card
    assert all("Of 2 rows set aside for testing" in text for text in (card, report))
    assert "60 rows read" in out
    assert "57 for training, 1 for validation, 2 for test" in out
    assert "reference loss" in out
    rows = figures(tmp_path / "run")
    assert [row[:2] for row in rows] == [["1", "8"], ["2", "16"], ["3", "24"]]
    state = weights(tmp_path / "run" / "last.bin")
    model = CANINEOccupationClassifier(1919, encoder=config_of(state))
    load_model_from_checkpoint(tmp_path / "run" / "Checkpointm", model)
    assert_equal(dict(model.state_dict()), state["model"])


def config_of(state):
    from transformers import CanineConfig

    return CanineConfig.from_pretrained(state["settings"]["encoder"])


def test_the_default_name_says_what_the_run_is(arguments):
    options = FlatOptions.from_namespace(train.build_parser().parse_args(["--sample-size", "4"]))
    assert options.name == "CANINE_Multilingual_CANINE_sample_size_4_lr_2e-05_batch_size_256"
    options = FlatOptions.from_namespace(train.build_parser().parse_args(["--model-domain", "some/folder"]))
    assert options.name == "CANINE_folder_sample_size_10_lr_2e-05_batch_size_256"


def test_a_finished_run_says_so_and_a_longer_one_goes_on(arguments, tmp_path, capsys):
    for epochs, said in ((1, "step 0\n"), (1, "The run is complete (step 8 of 8)"), (2, "step 8, from ")):
        code, out, err = outcome(capsys, arguments(tmp_path / "run", "--epochs", epochs))
        assert code == 0, err
        assert said in out
    assert [row[0] for row in figures(tmp_path / "run")] == ["1", "2"]


@pytest.mark.kills
def test_a_killed_run_goes_on_as_if_nothing_had_happened(arguments, tmp_path):
    """Killed in the middle of an epoch, before and after the augmented loader took over."""
    options = ["--dropout", 0.1, "--alt-prob", 1.0, "--save-interval", 3, "--epochs", 4]
    whole = Running(script, arguments(tmp_path / "whole", *options), log=tmp_path / "whole.log")
    killed = Running(slow_script, arguments(tmp_path / "killed", *options), log=tmp_path / "killed.log")
    killed.wait_for("step 5 of")
    killed.signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    again = Running(slow_script, arguments(tmp_path / "killed", *options), log=tmp_path / "again.log")
    again.wait_for("step 22 of")
    again.signal(signal.SIGKILL)
    assert again.wait() == -signal.SIGKILL
    last = Running(script, arguments(tmp_path / "killed", *options), log=tmp_path / "last.log")
    assert last.wait() == 0, last.output
    assert whole.wait() == 0, whole.output
    assert "step 3, from" in again.output
    assert "step 21, from" in last.output
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    for name in ("m.bin", "Checkpointm.bin"):
        assert_equal(weights(tmp_path / "killed" / name), weights(tmp_path / "whole" / name))


def test_a_stop_during_an_evaluation_loses_none(arguments, tmp_path, monkeypatch, capsys):
    """The evaluation that a signal cuts short is made up for when the run goes on; a demo shows its end then alone."""
    from histocc import trainer

    assert outcome(capsys, arguments(tmp_path / "whole"))[0] == 0
    evaluate = trainer.evaluate_figures

    def stopped(model, loader, loss_fn, context, codes=None):
        context.stop.name = "SIGTERM"
        return evaluate(model, loader, loss_fn, context, codes)

    with monkeypatch.context() as context:
        context.setattr(trainer, "evaluate_figures", stopped)
        code, out, _ = outcome(capsys, arguments(tmp_path / "run", "--demo"))
    assert code == 0
    assert "coded by" not in out
    assert "Stopped by SIGTERM at step 8, all saved; the same command resumes it." in out
    assert not (tmp_path / "run" / "logs.csv").exists()
    code, out, _ = outcome(capsys, arguments(tmp_path / "run", "--demo"))
    assert code == 0
    assert "coded by" in out
    assert "--input TABLE.csv --language-col lang" in out
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")


def test_the_switch_to_augmented_data_outlives_a_stop(arguments, tmp_path, capsys, monkeypatch):
    from histocc.runs import flat

    monkeypatch.setattr(flat, "AugmentationSwitch", partial(AugmentationSwitch, share=1e9))
    for steps in (8, 12, 24):  # at the end of the first epoch, within the second
        code, _, err = outcome(capsys, arguments(tmp_path / "stopped", "--max-steps", steps, "--warmup-steps", 0))
        assert code == 0, err
    rows = figures(tmp_path / "stopped")
    assert [row[6] for row in rows if row[1] in ("8", "16", "24")] == ["0", "1", "1"]


def test_two_processes_train_and_evaluate_together(arguments, tmp_path):
    """The final character layer gets no gradient, and nobody waits for one; a step has the rows of both."""
    single = arguments(tmp_path / "one", "--epochs", 1, "--batch-size", 16, "--warmup-steps", 0)
    alone = Running(script, single, log=tmp_path / "alone.log")
    pair = arguments(tmp_path / "two", "--epochs", 1, "--warmup-steps", 0)
    ranks = start_ranks(script, pair, world_size=2, folder=tmp_path)
    for process in (*ranks, alone):
        assert process.wait() == 0, process.output
    (one,), (two,) = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert two[:2] == one[:2] == ["1", "4"]
    assert all(math.isfinite(float(value)) for value in two)
    assert "16 rows a step" in ranks[0].output


def test_weights_of_an_earlier_run_are_a_start(arguments, tmp_path, capsys):
    assert outcome(capsys, arguments(tmp_path / "a", "--epochs", 1))[0] == 0
    start = str(tmp_path / "a" / "Checkpointm")
    code, out, err = outcome(capsys, arguments(tmp_path / "b", "--epochs", 1, "--checkpoint-path", start))
    assert code == 0, err
    assert "1,919 classes carried over" in out
    code, out, _ = outcome(capsys, arguments(tmp_path / "b", "--epochs", 2, "--checkpoint-path", start))
    assert "--initial-checkpoint is not used: the run is resumed from" in out


def test_the_best_weights_are_looked_for_again_where_the_validation_rows_change(arguments, tmp_path, capsys):
    """Accuracies on other rows are no rivals: not when the rows change, and not of a still later session."""
    run, best = tmp_path / "run", tmp_path / "run" / "m.bin"
    assert outcome(capsys, arguments(run, "--epochs", 1))[0] == 0
    log = run / "logs.csv"
    header, row = log.read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","))) | {"val_acc": "1.0", "val_loss": "0.0"}
    log.write_text(f"{header}\n{','.join(cells.values())}\n")
    code, out, err = outcome(capsys, arguments(run, "--epochs", 2, "--max-val-samples", 1))
    assert code == 0, err
    assert "the best state is looked for again" in out
    state = torch.load(run / "last.bin", weights_only=True)
    found = torch.load(best, weights_only=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in state["model"].items())
    assert state["best_after"] == int(cells["step"])

    code, out, err = outcome(capsys, arguments(run, "--epochs", 3, "--max-val-samples", 1))
    assert code == 0, err
    assert "looked for again" not in out
    assert torch.load(run / "last.bin", weights_only=True)["best_after"] == int(cells["step"])


def test_amp_accumulation_and_workers(arguments, tmp_path, capsys):
    more = ["--use-amp", "--amp-dtype", "bfloat16", "--grad-accum-steps", 2, "--num-workers", 1, "--epochs", 1]
    code, out, err = outcome(capsys, arguments(tmp_path / "run", *more, "--max-val-samples", 1))
    assert code == 0, err
    assert "mixed, bfloat16" in out
    assert [row[:2] for row in figures(tmp_path / "run")] == [["1", "4"]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train-data", "nowhere"], "nowhere does not exist: name a folder with CSV files, or the files themselves"),
        (["--model-name", "a/b"], "--model-name is 'a/b'; it names files in the save folder"),
        (["--model-name", "last"], "--model-name is 'last'"),
        (["--model-name", "17"], "--model-name is '17'"),
        (
            ["--max-len", "3"],
            "--max-len is 3; it must lie in 4..1,048,576 (the encoder joins 4 characters to one position and needs",
        ),
        (["--alt-prob", "1.5"], "--augmentation-prob is 1.5; it must lie in 0..1"),
        (
            ["--checkpoint-path", "none"],
            "--initial-checkpoint none does not exist, also not with .bin behind it (nor is it the name occ-canine-v1",
        ),
        (["--warmup-pct", "0.1", "--warmup-steps", "3"], "give one of them"),
        (["--learning-rate", "-1"], "--learning-rate is -1.0; it must lie in 0..1,000"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(arguments, tmp_path, capsys, more, message):
    code, _, err = outcome(capsys, arguments(tmp_path / "run", *more))
    assert code == 2
    assert message in err
    assert not (tmp_path / "run").exists()


def test_all_problems_are_told_at_once(arguments, tmp_path, capsys):
    code, _, err = outcome(capsys, arguments(tmp_path / "run", "--alt-prob", -1, "--max-len", 2, "--train-data", "x"))
    assert code == 2
    assert "3 problems" in err


def test_a_class_out_of_range_names_file_row_and_column(arguments, folder, tmp_path, capsys):
    with (folder / "b.csv").open("a") as file:
        file.write("hand,en,1919,,,,\n")
    code, _, err = outcome(capsys, arguments(tmp_path / "run"))
    assert code == 2
    assert "a class outside 0..1918" in err
    assert "b.csv, row 22, column 'code1': '1919'" in err


def test_the_demo_runs_and_given_flags_win(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = outcome(capsys, ["--demo", "--epochs", "1", "--max-steps", "2", "--model-name", "m"])
    assert code == 0, err
    assert "This was the demo." in out
    assert (tmp_path / "runs" / "demo-train" / "m.bin").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    key, sample = hisco_codes(), pd.concat([pd.read_csv(path, dtype=str) for path in sample_paths()])
    codes = sample[["code1", "code2"]].apply(lambda row: " & ".join(key[int(label)] for label in row.dropna()), axis=1)
    check_unseen(out, set(), dict(zip(zip(sample["occ1"], sample["lang"]), codes)), whole_table=False)
