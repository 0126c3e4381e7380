"""A model fine-tuned from a call."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from histocc import OccCANINE
from histocc.errors import UsageError
from tests.prediction.models import OWN_KEY, own_system, save_checkpoint

CODES = ["01A", "02B", "X"]


@pytest.fixture
def table():
    rows = [(f"text {i % 9}", CODES[i % 3], CODES[(i + 1) % 3] if i % 2 else None, "en") for i in range(40)]
    return pd.DataFrame(rows, columns=["text", "own_1", "own_2", "lang"])


@pytest.fixture
def model(tmp_path, tiny_canine_config):
    # Text as the original's models have it; the new model reads it as it is.
    options = {"max_len": 32, "lowercase": True, "ascii_only": True}
    save_checkpoint(tmp_path / "base" / "last.bin", "mixer", tiny_canine_config, own_system(), **options)
    return OccCANINE(tmp_path / "base", verbose=False, batch_size=8)


def test_a_new_model_starts_from_this_one(model, table, tmp_path, capsys):
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    options = {"num_epochs": 1, "eval_interval": 2, "learning_rate": 1e-3, "warmup_steps": 0}
    model.finetune(table, tmp_path / "new", "text", "unk", "lang", **options)
    out = capsys.readouterr().out
    assert "flat head: 2 classes carried over, 1 start fresh" in out
    assert f"The model is in {tmp_path / 'new'}" in out
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, before[name])

    new = OccCANINE(tmp_path / "new", verbose=False)
    assert set(new.codes_list) == set(CODES)
    assert (new.system, new.max_seq_len) == ("own", 32)
    after = new.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("encoder."))
    moved = (after["decoder.head.weight"] - before["decoder.head.weight"]).abs().max()
    assert 0 < moved < 0.02, "five steps from the decoder there was"
    rows = [(new.finetune_key[code], OWN_KEY[code]) for code in CODES if code in OWN_KEY]
    for own, old in rows:
        assert (after["linear_decoder.weight"][own] - before["linear_decoder.weight"][old]).abs().max() < 0.02
    assert new("Text Æ")["occ1"].tolist() == ["unk[SEP]Text Æ"]
    with pytest.raises(UsageError, match=r"last\.bin is from a run before: choose another save_path"):
        model.finetune(table, tmp_path / "new", "text", "unk", "lang")


def test_a_file_and_a_model_with_another_alphabet(tmp_path, table, tiny_canine_config, capsys):
    """Of a HISCO model everything but the decoder can be used; the encoder may be trained as well."""
    base = OccCANINE(skip_load=True, model_type="flat", encoder=tiny_canine_config, verbose=False, batch_size=8)
    before = base.model.state_dict()["basemodel.pooler.dense.weight"].clone()
    table.to_csv(tmp_path / "table.csv", index=False)
    options = {"num_epochs": 1, "target_cols": ["own_1"], "freeze_encoder": False, "learning_rate": 1e-3}
    base.finetune(tmp_path / "table.csv", tmp_path / "new", "text", "en", None, warmup_steps=0, **options)
    assert "decoder starts fresh" in capsys.readouterr().out
    new = OccCANINE(tmp_path / "new", verbose=False)
    assert new.model_type == "mix"
    moved = (new.model.state_dict()["encoder.pooler.dense.weight"] - before).abs().max()
    assert 0 < moved < 0.02


def test_what_is_wrong_is_said_before_training(model, table, tmp_path):
    with pytest.raises(UsageError, match=r"no column own_1: name the columns of the codes with target_cols=; .*code"):
        model.finetune(table.rename(columns={"own_1": "code", "own_2": "b"}), tmp_path / "new", "text", "en", None)
    with pytest.raises(UsageError, match="has no column 'occ1'"):
        model.finetune(table, tmp_path / "new", "occ1", "en", None)
    table.loc[0, "own_1"] = "much too long"
    with pytest.raises(UsageError, match="much too long"):
        model.finetune(table, tmp_path / "new", "text", "en", None, drop_bad_labels=False)
    # Rows that do not fit may be listed there.
    assert not {path.name for path in (tmp_path / "new").glob("*")} & {"data_train.csv", "key.csv", "last.bin"}
