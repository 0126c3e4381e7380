"""Data of the flat classifier: the original's sampling steps, labels, and batches no wider than their texts."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.dataloader import (
    labels_to_bin,
    load_data,
    reference_loss,
    resample,
    subset_to_smaller,
    train_test_val,
)
from histocc.dataloader.flat import reference_loss_of, resample_rows, training_files
from histocc.dataloader.flat_dataset import length_groups
from histocc.errors import Problems, UsageError

HEADER = "occ1,lang,code1,code2,code3,code4,code5"
CODES = ["code1", "code2", "code3", "code4", "code5"]


@pytest.fixture(scope="module")
def pipeline(golden):
    return json.loads((golden / "flat_pipeline" / "expected.json").read_text())


@pytest.fixture(scope="module")
def folder(golden):
    return golden / "flat_pipeline" / "Training_data"


@pytest.fixture(scope="module")
def frame(folder):
    return pd.read_csv(folder / "EN_sample_train.csv")


def ids(frame):
    return frame["RowID"].tolist()


def classes_on(labels):
    return [np.flatnonzero(row).tolist() for row in labels]


def test_sampling_steps_give_the_originals_rows(frame, pipeline):
    assert ids(resample(frame, False, 0)) == pipeline["resample_none"]
    assert ids(resample(frame, True, 5)) == pipeline["resample_downsample_top1_upsample_5"]
    resampled = resample(frame, True, 0)
    assert ids(resampled) == pipeline["resample_downsample_top1"]
    subset = subset_to_smaller(resampled, 3)
    assert ids(subset) == pipeline["subset_sample_size_3"] == pipeline["subset_rows"]
    assert reference_loss(subset) == pytest.approx(pipeline["reference_loss"], rel=1e-9)
    assert dict(zip(("train", "val", "test"), map(ids, train_test_val(subset)))) == pipeline["split"]
    assert classes_on(labels_to_bin(subset, 1919)) == pipeline["labels_multi_rows"]
    singly = [labels_to_bin(subset.iloc[[i]], 1919) for i in range(len(subset))]
    assert [classes_on(row)[0] for row in singly] == pipeline["labels_single_row"]


def test_labels_follow_the_original(golden):
    expected = json.loads((golden / "flat_pipeline" / "labels.json").read_text())

    def one(codes):
        return pd.DataFrame([[*codes, *[None] * (5 - len(codes))]], columns=CODES)

    cases = expected["cases"]
    many = classes_on(labels_to_bin(pd.concat([one(case["codes"]) for case in cases]), 10))
    assert many == [case["multi"] for case in cases]
    assert [classes_on(labels_to_bin(one(case["codes"]), 10))[0] for case in cases] == [c["single"] for c in cases]
    assert classes_on(labels_to_bin(one(expected["gap"]["codes"]), 10)) == [expected["gap"]["single"]]


def test_the_loaders_hold_the_originals_rows(folder, pipeline, frame):
    """`load_data` as a whole, from the file to the labels of each part."""
    data = load_data(upsample_below=0, sample_size=3, max_len=64, train_data=folder)
    assert data["reference_loss"] == pytest.approx(pipeline["reference_loss"], rel=1e-9)
    by_id = frame.set_index("RowID")
    for name, part in (("train", "train"), ("train_attack", "train"), ("val", "val"), ("test", "test")):
        dataset = data[f"data_loader_{name}"].dataset.dataset
        rows = by_id.loc[pipeline["split"][part]]
        assert [dataset.text[row] for row in dataset.rows] == rows["occ1"].tolist()
        codes = [{int(code) for code in row if code == code} for row in rows[CODES].to_numpy()]
        wanted = [own - {0} if max(own) >= 3 else own for own in codes]
        assert [{c for c in row.tolist() if c >= 0} for row in dataset.classes[dataset.rows]] == wanted
    assert data["Languages"] == ["en"]
    assert data["Occupations"][0] == frame["occ1"][0]
    assert data["N_CLASSES"] == len(data["key"]) == 1919
    assert data["key"][3] == "01110"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.booleans(), st.integers(0, 12), st.integers(0, 2))
def test_sampling_steps_are_those_of_data_frames(classes, downsample, below, sample_size):
    """The same, written with pandas as the original did."""
    frame = pd.DataFrame({"code1": classes})
    if downsample:
        counts = frame["code1"].value_counts(sort=False)
        if len(counts) > 1:
            top = counts.idxmax()
            few = frame[frame["code1"] == top].sample(int(counts.sort_values().iloc[-2]), random_state=20)
            frame = pd.concat([few, frame[frame["code1"] != top]])
        frame = frame.sample(frac=1, random_state=20)
    if below:
        parts = [frame]
        for c in frame["code1"].unique():
            own = frame[frame["code1"] == c]
            if len(own) < below:
                parts.append(own.sample(below, replace=True, random_state=20))
        frame = pd.concat(parts).sample(frac=1, random_state=20)
    assert resample_rows(np.array(classes), downsample, below).tolist() == frame.index.tolist()
    if 10**sample_size < len(frame):
        frame = frame.sample(10**sample_size, random_state=20)
    again = resample(pd.DataFrame({"code1": classes}), downsample, below)
    assert subset_to_smaller(again, sample_size).index.tolist() == frame.index.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 8), min_size=3, max_size=3), min_size=1, max_size=30))
def test_reference_loss_is_the_mean_binary_cross_entropy(classes):
    classes = np.array(classes)
    classes[:, 0] = np.abs(classes[:, 0])
    last = classes[:, 0].max()
    hot = np.zeros((len(classes), last + 1))
    for row, own in zip(hot, classes.tolist()):
        own = set(own) - {-1}
        if 2 in own and max(own) >= 3:
            own.discard(0)
        for c in own:
            if c <= last:
                row[c] = 1
    p = hot.mean(axis=0).clip(1e-9, 1 - 1e-9)
    wanted = -(hot * np.log(p) + (1 - hot) * np.log(1 - p)).mean()
    assert reference_loss_of(classes) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_of_many_rows_the_reference_loss_takes_a_sample():
    frame = pd.DataFrame({"code1": np.random.default_rng(0).integers(0, 9, 12_000)})
    assert reference_loss(frame) == reference_loss(frame.sample(10_000, random_state=20))


@pytest.mark.parametrize(
    ("n", "sizes"), [(21, (19, 1, 1)), (1001, (950, 25, 26)), (3_000_000, (2_900_000, 50_000, 50_000))]
)
def test_five_percent_and_at_most_100_000_rows_are_set_aside(n, sizes):
    frame = pd.DataFrame({"row": np.arange(n)})
    parts = train_test_val(frame)
    assert tuple(map(len, parts)) == sizes
    assert np.array_equal(np.sort(np.concatenate([part["row"] for part in parts])), np.arange(n))


def table(path, *rows, header=HEADER):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def rows(n, text="baker", code=5):
    return [f"{text} {i},en,{code},,,," for i in range(n)]


def load(folder, **options):
    return load_data(**{"upsample_below": 0, "downsample_top1": False, "max_len": 32, "train_data": folder, **options})


def test_files_are_read_in_order_of_name_and_gaps_passed_over(tmp_path):
    table(tmp_path / "b.csv", ",en,1918,,7,,", *rows(20, "b"))
    table(tmp_path / "a.csv", *rows(21, "a"))
    (tmp_path / "notes.txt").write_text("not a table")
    data = load(tmp_path)
    occupations = list(data["Occupations"])
    assert occupations[:21] == [f"a {i}" for i in range(21)]
    assert occupations[21] == " "  # an empty description
    dataset = data["data_loader_train"].dataset.dataset
    assert dataset.classes[21].tolist() == [1918, -1, 7, -1, -1]
    assert dataset[int(np.flatnonzero(dataset.rows == 21)[0])]["targets"].nonzero().flatten().tolist() == [7, 1918]


def test_the_shipped_sample_can_be_read():
    data = load_data(toyload=True, max_len=32)
    assert len(data["Occupations"]) == 1512
    assert len(data["Languages"]) == 12


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no CSV files to train on \(--train-data\)"),
        ({"a": ("occ1,lang,code1", ["baker,en,5"])}, r"a\.csv has no columns 'code2', 'code3', 'code4', 'code5'"),
        (
            {"a": (HEADER, [*rows(30), "hand,en,1919,,,,"])},
            r"a class outside 0\.\.1918.*\n.*row 32, column 'code1': '1919'",
        ),
        (
            {"a": (HEADER, [*rows(30), "hand,en,3,-4,,,"])},
            r"a class outside 0\.\.1918.*\n.*row 32, column 'code2': '-4'",
        ),
        ({"a": (HEADER, [*rows(30), "hand,en,baker,,,,"])}, r"no class index, that is a whole number from 0 to 1918"),
        ({"a": (HEADER, [*rows(30), "hand,en,,,,,"])}, "the first code is missing"),
        ({"a": (HEADER, rows(20))}, r"20 rows are too few: 0.05 of them are set aside .*leaves none for validation"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(tmp_path, files, message):
    for name, (header, lines) in files.items():
        table(tmp_path / f"{name}.csv", *lines, header=header)
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def test_a_folder_that_is_not_there_and_a_bad_file_are_reported_together(tmp_path):
    problems = Problems()
    bad = table(tmp_path / "bad.csv", "1", header="x")
    assert training_files([tmp_path / "nowhere", bad], problems) == [bad]
    with pytest.raises(UsageError, match=r"(?s)2 problems.*nowhere does not exist.*bad\.csv has no columns 'occ1'"):
        problems.raise_if_any()


def test_files_may_differ_in_columns_that_are_never_read(tmp_path):
    table(tmp_path / "a.csv", *rows(15))
    table(tmp_path / "b.csv", *(f"1,{r}" for r in rows(15)), header=f"extra,{HEADER}")
    alike = table(tmp_path / "alike" / "a.csv", *rows(15), *rows(15))
    texts = [load(place)["Occupations"].to_list() for place in (tmp_path, [alike])]
    assert texts[0] == texts[1]


def test_there_must_be_room_for_a_text(tmp_path):
    table(tmp_path / "a.csv", *rows(30))
    with pytest.raises(UsageError, match=r"the greatest length is 3; CANINE needs at least 4 \(--max-len\)"):
        load(tmp_path, max_len=3)


# -- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_len", [24, 50, 128])
def test_a_batch_is_as_wide_as_its_longest_text(folder, max_len):
    dataset = load(folder, max_len=max_len)["data_loader_val"].dataset.dataset
    batch = dataset.batch(np.arange(40) % len(dataset))
    items = [dataset[int(row)] for row in batch["rows"]]
    lengths = batch["attention_mask"].sum(1)
    width = batch["input_ids"].shape[1]
    assert width == min(max_len, -(-int(lengths.max()) // 4) * 4)
    assert torch.equal(batch["targets"], torch.stack([item["targets"] for item in items]))
    for name in ("input_ids", "attention_mask"):
        padded = torch.stack([item[name] for item in items])
        assert torch.equal(batch[name], padded[:, :width])
        assert not padded[:, width:].any()
    first = 0
    for size, group_width in batch["groups"]:
        assert int(lengths[first : first + size].max()) <= group_width
        first += size
    assert first == len(items)


def test_widths_can_be_coarser(folder):
    dataset = load(folder, max_len=100, width_step=16)["data_loader_val"].dataset.dataset
    batch = dataset.batch(np.arange(len(dataset)))
    assert all(width % 16 == 0 or width == 100 for _, width in batch["groups"])
    assert batch["input_ids"].shape[1] == batch["groups"][-1][1]


def test_batches_have_class_indices_alone_where_that_is_enough(folder):
    dataset = load(folder, dense_targets=False)["data_loader_val"].dataset.dataset
    batch = dataset.batch(np.arange(20))
    assert "targets" not in batch
    hot = torch.zeros(20, 1920).scatter_(1, batch["targets_classes"] % 1920, 1.0)[:, :1919]
    assert torch.equal(hot, torch.stack([dataset[int(row)]["targets"] for row in batch["rows"]]))


def test_only_the_augmented_loader_attacks_and_both_hide_the_language(folder):
    data = load(folder, max_len=64, alt_prob=1.0)
    plain, attacked = (data[f"data_loader_{name}"].dataset.dataset for name in ("train", "train_attack"))
    some = range(400)
    original = [plain.text[row].strip("'[]") for row in plain.rows[some]]
    texts = {name: [d[i]["occ1"].split("[SEP]") for i in some] for name, d in (("p", plain), ("a", attacked))}
    assert [text for _, text in texts["p"]] == original
    assert np.mean([text != own for (_, text), own in zip(texts["a"], original)]) > 0.8
    for languages, _ in (zip(*texts["p"]), zip(*texts["a"])):
        assert np.mean([language == "unk" for language in languages]) == pytest.approx(0.25, abs=0.08)
    assert [plain[i]["occ1"] for i in range(50)] != ["[SEP]".join(pair) for pair in texts["p"][:50]]
    rows = np.arange(50)
    ids = [plain.batch(rows, epoch)["attention_mask"].sum() for epoch in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    val = data["data_loader_val"].dataset.dataset
    assert {val[i]["occ1"].split("[SEP]")[0] for i in range(len(val))} == {"en"}


def test_words_to_insert_are_those_of_the_training_rows(folder):
    data = load(folder, alt_prob=1.0)
    attacked = data["data_loader_train_attack"].dataset.dataset
    pool = {attacked.augmenter.words[i] for i in range(len(attacked.augmenter.words))}
    assert pool == {word for row in attacked.rows for word in attacked.text[row].split()}
    assert load(folder, insert_words=False)["data_loader_train_attack"].dataset.dataset.augmenter.words is None


def test_drawn_rows_get_a_noise_of_their_own_each_time(tmp_path):
    table(tmp_path / "a.csv", *rows(20), "smith and baker,en,9,,,,")
    attacked = load(tmp_path, upsample_below=30, alt_prob=1.0)["data_loader_train_attack"].dataset.dataset
    same = np.flatnonzero(attacked.rows == 20)
    assert len(same) > 10
    assert len({attacked[int(i)]["occ1"] for i in same}) > 5


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 32).map(lambda w: 4 * w), min_size=1, max_size=60), st.integers(0, 300))
def test_groups_are_the_cheapest_division(widths, cost):
    widths = np.sort(np.array(widths))
    groups = length_groups(widths, cost)
    first, total = 0, 0
    for size, width in groups:
        assert widths[first : first + size].max() == width
        first += size
        total += size * width + cost
    assert first == len(widths)
    distinct = np.unique(widths)[:10]
    if len(np.unique(widths)) <= 10:
        cheapest = min(
            sum(
                cost + w * int(((widths > below) & (widths <= w)).sum())
                for below, w in itertools.pairwise([0, *cuts, distinct[-1]])
            )
            for k in range(len(distinct))
            for cuts in itertools.combinations(distinct[:-1].tolist(), k)
        )
        assert total == cheapest
