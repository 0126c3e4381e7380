"""The engine on the original's own runs, and what it leaves on disk."""

import csv

import numpy as np
import pytest
import torch

from histocc.dataloader import OccDatasetMixerInMemMultipleFiles, TrainBatchSampler, make_loader
from histocc.errors import UsageError
from histocc.formatter import coding_system, construct_general_purpose_formatter, hisco_blocky5, occ1950_blocky1
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.metrics.code_sets import EvaluatedCodes
from histocc.model_assets import Seq2SeqMixerOccCANINE
from histocc.prediction_assets import OccCANINE
from histocc.seq2seq_mixer_engine import build_loop, evaluate, evaluate_figures, mixer_loss, train, train_one_epoch
from histocc.stored_model import describes_model, load_stored_model
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.context import Plan, RunContext
from histocc.training.reporting import LOG_COLUMNS
from tests.golden_runs import Run, without_key_bias

CPU = torch.device("cpu")


@pytest.fixture(params=["hisco_no_warmup", "pst_warmup_10pct"])
def run(request, golden, tiny_canine_config):
    return Run(golden / "trajectories", request.param, tiny_canine_config)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense classes", "class indices"])
def test_the_engine_follows_the_original(run, sparse, tmp_path, capsys):
    model, loss_fn, optimizer, scheduler = run.arguments()
    loaders = {"data_loader_train": run.batches("train", sparse), "data_loader_val": run.batches("val", sparse)}

    train(model, loaders, loss_fn, optimizer, CPU, scheduler, tmp_path, run.total_steps, log_interval=1)

    rates = [
        float(line.split("lr ")[1].split(",")[0])
        for line in capsys.readouterr().out.splitlines()
        if ": epoch's mean loss" in line
    ]
    assert rates[:-1] == pytest.approx(run.expected["lrs_used"][1:], rel=1e-3)
    for name, wanted in run.final.items():
        if (wanted := without_key_bias(name, wanted)) is not None:
            distance = (without_key_bias(name, model.state_dict()[name]) - wanted).norm()
            assert distance <= 1e-5 * wanted.norm(), name
    (row,) = csv.DictReader((tmp_path / "logs.csv").open())
    assert tuple(row)[: len(LOG_COLUMNS)] == LOG_COLUMNS
    assert float(row["train_loss"]) == pytest.approx(np.mean(run.expected["losses"]), rel=1e-5)
    renamed = {"val_loss": "loss", "val_loss_linear": "loss_linear", "val_loss_seq2seq": "loss_seq2seq"}
    for column in ("val_loss", "val_loss_linear", "val_loss_seq2seq", "seq_acc", "token_acc", "flat_acc"):
        assert float(row[column]) == pytest.approx(run.expected["evaluate"][renamed.get(column, column)], rel=1e-5)


def test_evaluate_returns_the_six_figures_in_order(run):
    run.model.load_state_dict(run.final)
    figures = evaluate(run.model, run.batches("val"), run.loss_fn, CPU)
    names = ("loss", "loss_linear", "loss_seq2seq", "seq_acc", "token_acc", "flat_acc")
    assert figures == pytest.approx([run.expected["evaluate"][name] for name in names], rel=1e-5)


def test_evaluate_refuses_to_judge_without_rows(run):
    with pytest.raises(ValueError, match="there is nothing to evaluate"):
        evaluate(run.model, [], run.loss_fn, CPU)


def test_train_one_epoch_returns_the_step_reached_and_shows_how_it_goes(run, tmp_path, capsys):
    model, loss_fn, optimizer, scheduler = run.arguments()
    batches = run.batches("train")[:5]
    step = train_one_epoch(
        model, batches, loss_fn, optimizer, CPU, scheduler, 7, 2, save_interval=4, save_dir=tmp_path, total_steps=100
    )
    assert step == 12
    assert sorted(p.name for p in tmp_path.glob("*.bin")) == ["12.bin", "8.bin", "last.bin"]
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch's mean loss" in line]
    assert [line.split(":")[0] for line in lines] == [f"step {step} of 100" for step in (8, 10, 12)]


def test_a_worse_epoch_leaves_the_best_state_of_earlier_ones(run, tmp_path):
    model, loss_fn, *_ = run.arguments()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches, held_out = run.batches("train")[:2], run.batches("val")[:1]
    step = 0
    for best in (2, 2, 6):
        more = {"eval_interval": 2, "save_dir": tmp_path, "data_loader_eval": held_out}
        step = train_one_epoch(model, batches, loss_fn, optimizer, CPU, None, step, **more)
        assert torch.load(tmp_path / "best.bin", weights_only=True)["step"] == best
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3 if step == 2 else 1 / 3)


def test_training_without_batches_ends_with_an_error(run):
    model, loss_fn, optimizer, scheduler = run.arguments()
    once = iter(run.batches("train")[:2])
    with pytest.raises(ValueError, match="nothing to train on: the data loader gave no batches in epoch 1"):
        train(model, {"data_loader_train": once}, loss_fn, optimizer, CPU, scheduler, None, 3)


def test_checkpoints_hold_the_entries_of_the_original(run, tmp_path):
    model, loss_fn, optimizer, scheduler = run.arguments()
    loaders = {"data_loader_train": run.batches("train"), "data_loader_val": run.batches("val")}
    train(model, loaders, loss_fn, optimizer, CPU, scheduler, tmp_path, 5, eval_interval=2, save_interval=2)
    assert {p.name for p in tmp_path.glob("*.bin")} == {"2.bin", "4.bin", "5.bin", "last.bin", "best.bin"}
    state = torch.load(tmp_path / "last.bin", weights_only=True)
    assert {"model", "optimizer", "scheduler", "step", "key"} <= state.keys()
    assert state["step"] == 5
    assert state["model"].keys() == run.final.keys()
    assert (tmp_path / "last.bin").samefile(tmp_path / "5.bin")
    rows = list(csv.DictReader((tmp_path / "logs.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert torch.load(tmp_path / "best.bin", weights_only=True)["step"] == int(best["step"])


def test_accumulated_batches_make_one_step_of_their_mean_gradient(run):
    model, loss_fn, *_ = run.arguments()
    batches = run.batches("train")[:3]
    start = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = []
    for batch in batches:
        model.zero_grad()
        mixer_loss(model, batch, loss_fn)["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    wanted = torch.stack(gradients).mean(0)

    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    train(model, {"data_loader_train": batches}, loss_fn, sgd, CPU, None, None, 1, grad_accum_steps=3)
    moved = torch.cat([(start[n] - p.detach()).flatten() for n, p in model.named_parameters()])
    clipped = wanted / max(1.0, float(wanted.norm()))
    assert float((moved - clipped).norm() / clipped.norm()) < 1e-4


class Doubled(LossMixer):
    """A user's subclass, which minimises something else."""

    def forward(self, out_seq2seq, out_linear, target_seq2seq, target_linear):
        return 2 * super().forward(out_seq2seq, out_linear, target_seq2seq, target_linear)


class Wrapper(torch.nn.Module):
    """A user's module around a loss: the two parts and nothing else of `LossMixer`."""

    def __init__(self, mixer):
        super().__init__()
        self.loss_fn_seq2seq, self.loss_fn_linear = mixer.loss_fn_seq2seq, mixer.loss_fn_linear
        self.mixer = [mixer]

    def forward(self, *, out_seq2seq, out_linear, target_seq2seq, target_linear):
        return 2 * self.mixer[0](out_seq2seq, out_linear, target_seq2seq, target_linear)


def own_loss(kind, mixer):
    if kind == "subclass":
        return Doubled(mixer.loss_fn_seq2seq, mixer.loss_fn_linear, mixer.seq2seq_weight)
    wrapper = Wrapper(mixer)
    return wrapper if kind == "module" else lambda **arguments: wrapper(**arguments)


@pytest.mark.parametrize("kind", ["subclass", "module", "function"])
def test_training_minimises_what_the_given_loss_returns(run, kind, capsys):
    """Twice the loss makes twice the step, as long as nothing is clipped."""
    model, loss_fn, *_ = run.arguments()
    start = {k: v.clone() for k, v in model.state_dict().items()}
    moves = []
    for loss in (loss_fn, own_loss(kind, loss_fn)):
        model.load_state_dict(start)
        sgd = torch.optim.SGD(model.parameters(), lr=1.0)
        loop = train_loop(model, run.batches("train")[:1], loss, sgd)
        moves.append(torch.cat([(start[n] - p.detach()).flatten() for n, p in model.named_parameters()]))
        assert loop.step == 1
    assert float((moves[1] - 2 * moves[0]).norm() / moves[0].norm()) < 1e-4


def train_loop(model, batches, loss_fn, optimizer):
    loop = build_loop(model, None, loss_fn, optimizer, None, Plan(1), RunContext.on("cpu"))
    loop.max_grad_norm = float("inf")
    loop.run(lambda epoch: batches)
    return loop


def test_an_evaluation_judges_by_the_given_loss_and_its_parts(run):
    plain = evaluate(run.model, run.batches("val"), run.loss_fn, "cpu")
    module = evaluate(run.model, run.batches("val"), own_loss("module", run.loss_fn), "cpu")
    assert module == pytest.approx([2 * plain[0], *plain[1:]], rel=1e-6)
    with pytest.raises(UsageError, match="give the loss a part loss_fn_seq2seq with nb_blocks and block_size, or"):
        evaluate(run.model, run.batches("val"), own_loss("function", run.loss_fn), "cpu")


def test_a_function_as_a_loss_is_judged_with_the_formatter_of_the_data(inputs, tiny_canine_config):
    data = OccDatasetMixerInMemMultipleFiles(inputs / "val.csv", hisco_blocky5(), None, 32, 1919, training=False)
    model = Seq2SeqMixerOccCANINE("", hisco_blocky5().num_classes, 1919, encoder=tiny_canine_config)
    figures = evaluate(model, torch.utils.data.DataLoader(data, 10), lambda out_linear, **_: out_linear.mean(), "cpu")
    assert np.isnan(figures[1:3]).all()
    assert np.isfinite([figures[0], *figures[3:]]).all()


def test_tensors_kept_from_an_evaluation_may_be_used_later(run):
    kept = []

    def loss(**arguments):
        kept.append(arguments["out_linear"])
        return run.loss_fn(**arguments)

    loss.loss_fn_seq2seq = run.loss_fn.loss_fn_seq2seq
    evaluate(run.model, run.batches("val"), loss, "cpu")
    (kept[0] * torch.ones(1, requires_grad=True)).sum().backward()


def test_the_flat_head_is_judged_in_float32(run):
    """In half precision the sigmoid of a small positive logit is exactly one half, and the row would be wrong."""
    (batch, *_) = run.batches("val")
    targets = batch["targets_linear"]

    class Head(torch.nn.Module):
        def forward(self, input_ids, attention_mask, target, target_mask, target_padding_mask):
            vocabulary = len(run.final["decoder.head.bias"])
            linear = torch.where(targets.bool(), 0.001, -0.001).to(torch.bfloat16)
            return torch.zeros(len(target), target.shape[1], vocabulary), linear

    assert evaluate(Head(), [batch], run.loss_fn, "cpu")[5] == 1.0


def test_a_sampler_in_place_of_the_loss_is_named(run):
    with pytest.raises(TypeError, match="the third argument of train is the loss function here"):
        train(run.model, {"data_loader_train": []}, torch.utils.data.SequentialSampler([1]), run.loss_fn)


def test_keywords_of_the_descendant_for_several_gpus(run, tmp_path):
    model, loss_fn, optimizer, scheduler = run.arguments()
    epochs = []

    class Sampler:
        def set_epoch(self, epoch):
            epochs.append(epoch)

    batches = run.batches("train")[:2]
    train(
        model=model,
        data_loaders={"data_loader_train": batches, "data_loader_val": run.batches("val")},
        train_sampler=Sampler(),
        loss_fn=loss_fn,
        optimizer=optimizer,
        device="cpu",
        scheduler=scheduler,
        save_dir=str(tmp_path),
        total_steps=4,
        save_each_epoch=True,
        distributed=False,
        is_main_process=True,
        use_amp=False,
    )
    assert epochs == [0, 1]
    assert {"2.bin", "4.bin"} <= {path.name for path in tmp_path.glob("*.bin")}
    step = train_one_epoch(
        model, batches, loss_fn, optimizer, "cpu", scheduler, current_step=4, epoch=2, scaler=None, distributed=False
    )
    assert step == 6


def test_decoding_is_judged_without_the_true_tokens_in_front(run):
    """Figures of greedy decoding, of some of the rows, equal a count over sets of what a plain decoder says."""
    run.model.load_state_dict(run.final)
    run.model.eval()
    formatter = run.formatter
    batches = run.batches("val")
    first = 0
    for batch in batches:
        size = len(batch["input_ids"])
        batch["rows"], first = torch.arange(first, first + size), first + size
    chosen = torch.arange(first) % 3 == 0
    codes = EvaluatedCodes(formatter, decoded=chosen)
    figures = evaluate_figures(run.model, batches, run.loss_fn, RunContext.on("cpu"), codes)

    right = predicted = true = exact = 0
    with torch.no_grad():
        for batch in batches:
            for row in chosen[batch["rows"]].nonzero()[:, 0].tolist():
                memory, _ = run.model.encode(batch["input_ids"][row : row + 1], batch["attention_mask"][row : row + 1])
                tokens = [2]
                for _ in range(formatter.max_seq_len - 1):
                    causal = torch.full((len(tokens), len(tokens)), -torch.inf).triu(1)
                    tokens.append(int(run.model.decode(memory, torch.tensor([tokens]), causal, None)[0, -1].argmax()))
                blocks = [formatter.clean_pred(t).split("&") for t in (tokens, batch["targets_seq2seq"][row])]
                found, wanted = ({code for code in each if code} for each in blocks)
                right, predicted, true = right + len(found & wanted), predicted + len(found), true + len(wanted)
                exact += found == wanted
    rows = int(chosen.sum())
    assert figures["decoded_rows"] == rows
    assert figures["decoded_exact_set_acc"] == pytest.approx(100 * exact / rows)
    assert figures["decoded_f1"] == pytest.approx(100 * 2 * right / (predicted + true))
    assert figures["decoded_precision"] == pytest.approx(100 * right / predicted if predicted else np.nan, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_the_flat_head_equal_a_plain_count(run, seed):
    (batch, *_) = run.batches("val")
    targets = batch["targets_linear"]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.where(torch.rand(targets.shape, generator=generator) < 0.002, -1.0, 1.0) * (2 * targets - 1)

    class Head(torch.nn.Module):
        def forward(self, input_ids, attention_mask, target, target_mask, target_padding_mask):
            return torch.zeros(*target.shape, len(run.final["decoder.head.bias"])), logits

    figures = evaluate_figures(Head(), [batch], run.loss_fn, RunContext.on("cpu"))
    found = [set(row.nonzero().flatten().tolist()) for row in logits > 0]
    wanted = [set(row.nonzero().flatten().tolist()) for row in targets > 0]
    right = sum(len(a & b) for a, b in zip(found, wanted))
    assert figures["flat_precision"] == pytest.approx(100 * right / sum(map(len, found)))
    assert figures["flat_recall"] == pytest.approx(100 * right / sum(map(len, wanted)))
    assert figures["flat_exact_set_acc"] == pytest.approx(100 * np.mean([a == b for a, b in zip(found, wanted)]))
    assert figures["flat_acc"] == pytest.approx(figures["flat_exact_set_acc"] / 100)


def test_a_save_folder_is_made_or_refused_before_the_first_step(run, tmp_path):
    model, loss_fn, optimizer, scheduler = run.arguments()
    loaders = {"data_loader_train": run.batches("train")}
    train(model, loaders, loss_fn, optimizer, CPU, scheduler, tmp_path / "runs" / "py", 1)
    assert (tmp_path / "runs" / "py" / "last.bin").is_file()
    (tmp_path / "file").touch()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(UsageError, match=r"save_dir .*file: this is a file; give a folder"):
        train(model, loaders, loss_fn, optimizer, CPU, scheduler, tmp_path / "file", 1)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_last_state_that_cannot_be_written_is_an_error(run, tmp_path, monkeypatch):
    model, loss_fn, optimizer, scheduler = run.arguments()
    write = CheckpointFolder.write

    def full(self, path, state):
        if state["step"] == 2:
            raise OSError("no space left")
        write(self, path, state)

    monkeypatch.setattr(CheckpointFolder, "write", full)
    monkeypatch.setattr("histocc.files.atomic._RETRY_SECONDS", 0)
    with pytest.raises(OSError, match=r"the state at step 2 could not be saved in .*: no space left"):
        train(model, {"data_loader_train": run.batches("train")}, loss_fn, optimizer, CPU, scheduler, tmp_path, 2)


def train_once(folder, dataset, config, formatter, cls=Seq2SeqMixerOccCANINE):
    """One step on a loader of ours; the entries of the checkpoint."""
    model = cls("", formatter.num_classes, dataset.num_classes_flat, 0.1, 48, encoder=config)
    loss_fn = LossMixer(
        BlockOrderInvariantLoss(0, nb_blocks=formatter.max_num_codes, block_size=formatter.block_size),
        torch.nn.BCEWithLogitsLoss(),
    )
    loader = make_loader(dataset, TrainBatchSampler(len(dataset), 10, seed=1))
    train(model, {"data_loader_train": loader}, loss_fn, torch.optim.AdamW(model.parameters()), CPU, None, folder, 1)
    return model, torch.load(folder / "last.bin", weights_only=True)


def test_a_checkpoint_says_what_model_it_holds(inputs, tiny_canine_config, tmp_path):
    formatter = hisco_blocky5()
    data = OccDatasetMixerInMemMultipleFiles(inputs / "val.csv", formatter, None, 32, 1919)
    model, _ = train_once(tmp_path / "hisco", data, tiny_canine_config, formatter)
    stored = load_stored_model(tmp_path / "hisco" / "last.bin")
    assert stored.system.codes == coding_system("hisco").codes
    settings = stored.settings
    assert (settings.max_len, settings.dropout, settings.decoder_dim_feedforward) == (32, 0.1, 48)
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in stored.model.state_dict().items())
    coded = OccCANINE(str(tmp_path / "hisco"), hf=False, device="cpu")(["a farmer"], lang="en")
    assert len(coded) == 1


def test_a_checkpoint_of_codes_of_ones_own_holds_their_key(tiny_canine_config, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("occ1,lang,a,b\nfarmer,en,x1,\nsmith,en,Y2,x1\n", encoding="utf-8")
    formatter = construct_general_purpose_formatter(2, ["a", "b"])
    key = {"Y2": 1, "x1": 0}
    data = OccDatasetMixerInMemMultipleFiles(table, formatter, None, 32, 2, target_cols=["a", "b"], map_code_label=key)
    _, entries = train_once(tmp_path, data, tiny_canine_config, formatter)
    stored = load_stored_model(tmp_path / "last.bin")
    assert stored.system.codes == ("x1", "Y2")
    assert stored.system.columns == ("a", "b")
    assert entries["languages"] == ["en"]


class Lowering(OccDatasetMixerInMemMultipleFiles):
    def _prepare_input(self, occ_descr, lang):
        return super()._prepare_input(occ_descr.lower(), lang)


class OwnModel(Seq2SeqMixerOccCANINE):
    pass


class OwnFormatter(type(hisco_blocky5())):
    def sanitize(self, raw_input):
        return super().sanitize(raw_input)


def own_formatter():
    formatter = OwnFormatter.__new__(OwnFormatter)
    formatter.__dict__.update(vars(hisco_blocky5()))
    return formatter


def replaced_list():
    formatter = hisco_blocky5()
    formatter.lookup_hisco = dict(enumerate(reversed(formatter.lookup_hisco.values())))
    return formatter


@pytest.mark.parametrize("own", ["formatter", "list of codes", "number of codes", "data set", "model", "classes"])
def test_a_checkpoint_made_with_code_of_ones_own_describes_nothing(own, inputs, tiny_canine_config, tmp_path):
    formatter = {"formatter": own_formatter, "list of codes": replaced_list, "number of codes": occ1950_blocky1}.get(
        own, hisco_blocky5
    )()
    cls = Lowering if own == "data set" else OccDatasetMixerInMemMultipleFiles
    columns = ["code1"] if own == "number of codes" else "hisco"
    classes = 2000 if own in ("classes", "number of codes") else 1919
    if own == "number of codes":
        table = tmp_path / "t.csv"
        table.write_text("occ1,lang,code1\nfarmer,en,100\nsmith,en,200\n", encoding="utf-8")
    else:
        table = inputs / "val.csv"
    data = cls(table, formatter, None, 32, classes, target_cols=columns)
    model = OwnModel if own == "model" else Seq2SeqMixerOccCANINE
    _, entries = train_once(tmp_path, data, tiny_canine_config, formatter, model)
    assert not describes_model(entries)
