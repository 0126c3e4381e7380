"""The flat classifier's engine on the original's own run, and what a run leaves on disk."""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from histocc.dataloader import load_data
from histocc.errors import UsageError
from histocc.model_assets import CANINEOccupationClassifier, load_model_from_checkpoint
from histocc.trainer import LOG_COLUMNS, FlatCheckpoints, eval_model, flat_loss, train_epoch, trainer_loop
from histocc.training import plots
from histocc.training.schedule import linear_schedule
from tests.rounding import assert_equal_but_for_rounding

CPU = torch.device("cpu")
LOSS = nn.BCEWithLogitsLoss()


class RecordingLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.values = []

    def forward(self, logits, targets):
        loss = LOSS(logits, targets)
        self.values.append(loss.item())
        return loss


@pytest.mark.parametrize("fast_encoder", [True, False])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense classes", "class indices"])
def test_the_engine_follows_the_original(golden, tiny_canine_config, fast_encoder, sparse, capsys):
    folder = golden / "trajectories"
    expected = json.loads((folder / "flat.json").read_text())
    with np.load(folder / "flat_batches.npz") as arrays:
        arrays = {name: torch.from_numpy(arrays[name].astype(np.int64)) for name in arrays}
    size = expected["batch_size"]
    batches = [{k: v[start : start + size] for k, v in arrays.items()} for start in range(0, 160, size)]
    if sparse:
        for batch in batches:
            on, classes = batch.pop("targets").topk(5, dim=1)
            batch["targets_classes"] = classes.where(on > 0, -1)
    model = CANINEOccupationClassifier(1919, encoder=tiny_canine_config, fast_encoder=fast_encoder)
    model.load_state_dict(load_file(folder / "flat_init.safetensors"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=expected["learning_rate"])
    scheduler = linear_schedule(optimizer, expected["warmup_steps"], expected["total_steps"])
    loss_fn = RecordingLoss()

    accuracy, loss = train_epoch(model, batches, loss_fn, optimizer, CPU, scheduler, num_batches_to_average=8)

    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch's mean loss" in line]
    assert [line.split(":")[0] for line in lines] == [f"step {step} of 20" for step in (8, 16, 20)]
    assert loss_fn.values == pytest.approx(expected["losses"], rel=1e-5)
    assert (accuracy, loss) == pytest.approx((expected["train_accuracy"], expected["train_loss"]), rel=1e-5)
    for name, wanted in load_file(folder / "flat_final.safetensors").items():
        if not name.endswith(".key.bias"):  # their true gradient is zero, so that Adam amplifies rounding
            assert (model.state_dict()[name] - wanted).norm() <= 1e-5 * wanted.norm(), name
    figures = eval_model(model, batches[:4], LOSS, CPU)
    assert figures == pytest.approx((expected["eval_accuracy"], expected["eval_loss"]), rel=1e-5)


def test_evaluation_refuses_to_judge_without_rows(tiny_canine_config):
    with pytest.raises(ValueError, match="there is nothing to evaluate"):
        eval_model(CANINEOccupationClassifier(3, encoder=tiny_canine_config), [], LOSS, CPU)


@pytest.fixture(scope="module")
def folder(golden):
    return golden / "flat_pipeline" / "Training_data"


@pytest.fixture(scope="module")
def data(folder):
    return load_data(upsample_below=0, sample_size=2, max_len=40, batch_size=32, alt_prob=1.0, train_data=folder)


def build(config, num_classes=1919, **options):
    torch.manual_seed(0)
    return CANINEOccupationClassifier(num_classes, encoder=config, **options)


def test_trimmed_groups_give_what_the_plain_path_gives(tiny_canine_config, folder):
    """Outputs and gradients of the whole model padded to 128, and of batches trimmed and divided by length."""
    data = load_data(upsample_below=0, sample_size=10, max_len=128, batch_size=128, train_data=folder)
    loader = data["data_loader_train"]
    batch = next(iter(loader))
    assert len(batch["groups"]) > 1
    missing = 128 - batch["input_ids"].shape[1]
    padded = {k: torch.nn.functional.pad(batch[k], (0, missing)) for k in ("input_ids", "attention_mask")}
    padded["targets"] = batch["targets"]
    outputs, gradients = [], []
    for fast, run in ((True, batch), (False, padded)):
        model = build(tiny_canine_config, fast_encoder=fast)
        groups = {"groups": run["groups"]} if "groups" in run else {}
        outputs.append(model(run["input_ids"], run["attention_mask"], **groups))
        flat_loss(model, run, LOSS)["loss"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert_equal_but_for_rounding(*outputs)
    assert gradients[0].keys() == gradients[1].keys()
    total = torch.cat([g.flatten() for g in gradients[1].values()]).norm()
    for name, wanted in gradients[1].items():
        assert (gradients[0][name] - wanted).norm() <= 1e-5 * total, name


def run_trainer(config, data, folder, epochs=3, reference_loss=1e9, **options):
    model = build(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = linear_schedule(optimizer, 0, epochs * len(data["data_loader_train"]))
    return trainer_loop(
        model, epochs, "name", data, LOSS, reference_loss, optimizer, CPU, scheduler, save_dir=folder, **options
    )


def test_a_run_leaves_weights_figures_and_tokenizer(tiny_canine_config, data, tmp_path):
    model, history = run_trainer(tiny_canine_config, data, tmp_path, reference_loss=0.0)
    rows = list(csv.DictReader((tmp_path / "logs.csv").open()))
    assert tuple(rows[0])[: len(LOG_COLUMNS)] == LOG_COLUMNS
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3] == history["epoch"]
    for name in ("train_loss", "train_acc", "val_loss", "val_acc"):
        assert [float(row[name]) for row in rows] == pytest.approx(history[name])
    assert history["train_loss"] == sorted(history["train_loss"], reverse=True)
    assert [row["augmented"] for row in rows] == ["0", "0", "0"]

    newest = torch.load(tmp_path / "Checkpointname.bin", weights_only=True)
    assert newest.keys() == model.state_dict().keys()
    assert all(torch.equal(newest[name], tensor) for name, tensor in model.state_dict().items())
    best, tokenizer = load_model_from_checkpoint(tmp_path / "name", build(tiny_canine_config))
    accuracy, _ = eval_model(best, data["data_loader_val"], LOSS, CPU)
    assert accuracy == pytest.approx(max(history["val_acc"]))
    assert tokenizer("tailor")["input_ids"]
    assert (tmp_path / "name_tokenizer").is_dir()
    assert (tmp_path / "name.png").stat().st_size > 1000
    state = torch.load(tmp_path / "last.bin", weights_only=True)
    assert state["position"]["epoch"] == 3
    assert state["step"] == 3 * len(data["data_loader_train"])
    assert len(list(tmp_path.glob("[0-9]*.bin"))) == 1  # older checkpoints do not pile up


@pytest.mark.parametrize(
    ("reference_loss", "begin", "expected"),
    [(1e9, False, ["0", "1", "1"]), (0.0, False, ["0", "0", "0"]), (0.0, True, ["1", "1", "1"])],
)
def test_the_augmented_loader_takes_over_for_good(
    tiny_canine_config, data, tmp_path, capsys, reference_loss, begin, expected
):
    run_trainer(tiny_canine_config, data, tmp_path, reference_loss=reference_loss, attack_switch=begin, verbose=True)
    rows = list(csv.DictReader((tmp_path / "logs.csv").open()))
    assert [row["augmented"] for row in rows] == expected
    assert ("augmented descriptions from here on" in capsys.readouterr().out) == (expected == ["0", "1", "1"])


def test_a_run_without_a_folder_writes_nothing(tiny_canine_config, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, history = run_trainer(tiny_canine_config, data, None, epochs=1)
    assert len(history["val_acc"]) == 1
    assert not list(tmp_path.iterdir())


def test_a_new_run_does_not_mix_its_figures_with_an_old_ones(tiny_canine_config, data, tmp_path):
    for _ in range(2):
        run_trainer(tiny_canine_config, data, tmp_path, epochs=1)
    assert len(list(csv.DictReader((tmp_path / "logs.csv").open()))) == 1


def test_without_matplotlib_a_line_says_how_to_get_the_figure(tiny_canine_config, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "can_draw", lambda: False)
    run_trainer(tiny_canine_config, data, tmp_path, epochs=2)
    assert capsys.readouterr().out.count("pip install 'histocc[plots]'") == 1
    assert not list(tmp_path.glob("*.png"))


def test_the_model_learns_a_code_at_the_end_of_the_list(tiny_canine_config, tmp_path):
    """Class 1918, code 99999, is a class like any other."""
    rows = [f"{text},en,{code},,,,\n" for text, code in (("baker", 738), ("hand", 1918)) for _ in range(40)]
    (tmp_path / "a.csv").write_text("occ1,lang,code1,code2,code3,code4,code5\n" + "".join(rows))
    data = load_data(upsample_below=0, max_len=24, batch_size=16, train_data=tmp_path)
    assert data["N_CLASSES"] == 1919
    assert data["key"][1918] == "99999"
    tiny_canine_config.initializer_range = 0.1
    model = build(tiny_canine_config)
    # From random weights the quickest way to many zeros is a pooled encoding that is the same for all texts.
    nn.init.constant_(model.out.bias, -7.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for epoch in range(40):
        data["data_loader_train"].sampler.set_epoch(epoch)
        accuracy, _ = train_epoch(model, data["data_loader_train"], LOSS, optimizer, CPU, None, verbose=False)
    assert accuracy == 1.0
    assert eval_model(model, data["data_loader_val"], LOSS, CPU)[0] == 1.0


def test_a_save_folder_that_cannot_be_made_is_refused_before_the_first_step(data, tiny_canine_config, tmp_path):
    (tmp_path / "file").touch()
    model = build(tiny_canine_config)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(UsageError, match=r"save_dir .*file: this is a file; give a folder"):
        trainer_loop(model, 1, "m", data, LOSS, 1.0, optimizer, CPU, None, save_dir=tmp_path / "file")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_last_state_that_cannot_be_written_is_an_error(data, tiny_canine_config, tmp_path, monkeypatch):
    def full(self, path, state):
        raise OSError("no space left")

    monkeypatch.setattr(FlatCheckpoints, "write", full)
    monkeypatch.setattr("histocc.files.atomic._RETRY_SECONDS", 0)
    model = build(tiny_canine_config)
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(OSError, match=r"the state at step \d+ could not be saved in .*: no space left"):
        trainer_loop(model, 1, "m", data, LOSS, 1.0, optimizer, CPU, None, save_dir=tmp_path / "new")
