"""The original's predictions with three small checkpoints of its own: HISCO, codes in parts (PST), and own codes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from histocc import OccCANINE

# Probabilities and encodings are float32 of up to 1, some after 26 steps of decoding.
CLOSE = {"rtol": 0, "atol": 1e-5}
DESCRIPTION = "what it means"


class Golden:
    """The model of a system and what the original answered with it."""

    def __init__(self, folder, name):
        self.name = name
        self.expected = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        self.arrays = np.load(folder / f"{name}.npz")
        self.texts, self.languages = self.expected["occ1"], self.expected["lang"]
        self.first = slice(self.expected["first_rows"])
        self.model = OccCANINE(
            folder / f"{name}.bin",
            hf=False,
            batch_size=self.expected["batch_size"],
            verbose=False,
            system=name,
            use_within_block_sep=self.expected["use_within_block_sep"],
            target_cols=self.expected["target_cols"],
            encoder=folder / "encoder_config.json",
        )
        known = self.model.codes_list
        described = known if name == "hisco" else []
        self.model.key_desc = dict.fromkeys(described, DESCRIPTION)

    def answer(self, rows=slice(None), **arguments):
        return self.model(self.texts[rows], **{"lang": self.languages[rows], **arguments})

    def compare(self, frame, prediction):
        """Codes, descriptions and order are equal, figures close; but for what differs on purpose."""
        expected = self.expected["predictions"][prediction]
        columns = expected["columns"]
        assert list(frame.columns) == columns
        assert len(frame) == len(expected["rows"])
        code_columns = [i for i, column in enumerate(columns) if column.startswith(f"{self.name}_")]
        for found, wanted in zip(frame.itertuples(index=False), expected["rows"]):
            codes = [wanted[i] for i in code_columns if wanted[i] not in ("nan", None)]
            for column, value, original in zip(columns, found, wanted):
                if column.startswith(("prob_", "conf")):
                    if prediction == "greedy" and len(codes) > 1 and not is_probability(original):
                        continue  # memory that the original never wrote
                    self.close(value, original)
                elif column.startswith("desc_"):
                    code = wanted[columns.index(column) - (2 if f"prob_{column[5:]}" in columns else 1)]
                    assert value == self.description(code, original)
                elif original is None:
                    assert pd.isna(value)
                else:
                    assert value == original

    def description(self, code, original):
        if code in ("nan", None):
            return "No pred"
        if code in ("-1", "-2", "-3"):  # which the original does not find in its key
            return DESCRIPTION
        return DESCRIPTION if original == "(known)" else original

    @staticmethod
    def close(value, original):
        if original is None:
            assert pd.isna(value)
        else:
            np.testing.assert_allclose(value, original, **CLOSE)


def is_probability(value):
    return value is not None and 0 <= value <= 1


@pytest.fixture(scope="module", params=["hisco", "pst", "own"])
def case(request, golden):
    return Golden(golden / "prediction", request.param)


def test_inputs_are_cleaned_as_the_original_cleans_them(case):
    expected = [row[0] for row in case.expected["predictions"]["greedy"]["rows"]]
    assert case.answer(behavior="fast")["occ1"].tolist() == expected


def test_flat(case):
    case.compare(case.answer(lang="en", behavior="fast"), "flat_default_threshold")
    arguments = case.expected["predictions"]["flat_threshold"]["arguments"]
    case.compare(case.answer(**arguments), "flat_threshold")


@pytest.mark.parametrize("what", ["probs", "logits"])
def test_all_scores_of_the_flat_head(case, what):
    found = case.answer(case.first, behavior="fast", what=what)
    if what == "logits":
        assert found.columns[0] == "occ1"
        found = found.drop(columns="occ1")
    np.testing.assert_allclose(found, case.arrays[f"flat_{what}"], **CLOSE)


def test_embeddings(case):
    found = case.answer(case.first, what="embeddings")
    assert list(found.columns) == ["occ1", *range(64)]
    np.testing.assert_allclose(found.drop(columns="occ1"), case.arrays["embeddings"], **CLOSE)


def test_greedy(case):
    case.compare(case.answer(order_invariant_conf=False), "greedy_naive_conf")
    case.compare(case.answer(), "greedy")


def test_greedy_in_rounds(case):
    case.compare(case.answer(case.first, prediction_type="greedy-topk", k_pred=3), "greedy_topk_3")


def test_duplicates_once(case):
    order = case.expected["predictions"]["greedy_deduplicated"]["order"]
    texts, languages = ([values[i] for i in order] for values in (case.texts, case.languages))
    found = case.model(texts, languages, deduplicate=True, order_invariant_conf=False)
    case.compare(found, "greedy_deduplicated")


def test_full_search(case):
    found = case.answer(slice(4), lang="en", prediction_type="full", k_pred=3, threshold=0.001)
    case.compare(found, "full_threshold")
    found = case.answer(case.first, prediction_type="full", what="probs")
    np.testing.assert_allclose(found, case.arrays["full_probs"], **CLOSE)


def test_indicators(case):
    found = case.answer(case.first, what="bin")
    ends = [column.replace("-0003", "-3") for column in case.expected["predictions"]["bin_columns"]]
    assert [found.columns[1], found.columns[-1]] == ends
    ones = [np.flatnonzero(row).tolist() for row in found.drop(columns="occ1").to_numpy()]
    wanted = [set(row) for row in case.expected["predictions"]["greedy_bin_ones"]]
    special = {case.model.finetune_key[code] for code in ("-1", "-2", "-3") if case.name == "hisco"}
    assert [set(row) - special for row in ones] == wanted


def test_several_codes_have_the_probability_that_one_of_them_is_first(case):
    """In place of the numbers that the original does not define: from the full search, where all codes are known."""
    rows = slice(20)
    found = case.answer(rows)
    columns = [column for column in found.columns if column.startswith(f"{case.name}_")]
    probabilities = case.answer(rows, prediction_type="full", what="probs")
    naive = case.answer(rows, order_invariant_conf=False)
    key, compared = case.model.finetune_key, 0
    for i, row in found.iterrows():
        codes = [row[column] for column in columns if row[column] != "nan"]
        if len(codes) < 2:
            assert row["conf"] == naive["conf"][i]
        elif all(code in key for code in codes):
            wanted = sum(probabilities[i, key[code]] for code in set(codes))
            np.testing.assert_allclose(row["conf"], wanted, **CLOSE)
            compared += 1
        assert 0 <= row["conf"] <= 1 + 1e-6
    assert compared or case.name != "own", "no text has known codes alone"


def test_the_key_may_stand_beside_the_file(golden, tmp_path):
    """The original saves it in the checkpoint; in older runs a key.csv holds it."""
    import torch

    folder = golden / "prediction"
    state = torch.load(folder / "own.bin", weights_only=True)
    torch.save({"model": state["model"], "step": 1, "key": None}, tmp_path / "own.bin")
    rows = "".join(f"{code},{index}\n" for code, index in state["key"].items())
    (tmp_path / "key.csv").write_text("system_code,code\n" + rows)
    shutil.copy(folder / "encoder_config.json", tmp_path / "config.json")
    arguments = {"hf": False, "system": "own", "target_cols": ["own_1", "own_2"], "verbose": False}
    beside = OccCANINE(tmp_path / "own", encoder=tmp_path, **arguments)
    within = OccCANINE(folder / "own.bin", encoder=folder / "encoder_config.json", **arguments)
    assert beside.codes_list == within.codes_list
    pd.testing.assert_frame_equal(beside(["smith", "farmer"]), within(["smith", "farmer"]))
