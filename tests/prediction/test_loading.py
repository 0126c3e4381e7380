"""Models from wherever people have them, and what is wrong with files that hold none."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch

from histocc import OccCANINE
from histocc.errors import UsageError
from histocc.files.key import write_key
from histocc.formatter import coding_system
from histocc.model_assets import encoder_settings
from histocc.prediction.loading import load_model
from histocc.prediction.published import PUBLISHED_SYSTEMS
from tests.prediction.models import OWN_KEY, make, own_system, publish, save_checkpoint

TEXTS = ["smith", "husmand og fisker"]


def same_weights(loaded, model):
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert not loaded.training


# --- This package's files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixer", "flat", "seq2seq"])
def test_a_checkpoint_needs_nothing_else(tmp_path, tiny_canine_config, kind):
    model = save_checkpoint(tmp_path / "last.bin", kind, tiny_canine_config, own_system(), max_len=40)
    for name in (tmp_path / "last.bin", tmp_path / "last", str(tmp_path)):
        loaded = load_model(name)
        same_weights(loaded.model, model)
        assert loaded.system.codes == tuple(OWN_KEY)
        assert loaded.label == "own"
        assert (loaded.settings.kind, loaded.settings.max_len) == (kind, 40)
        assert not loaded.settings.lowercase
        assert not loaded.settings.ascii_only


def test_texts_longer_than_the_encoder_takes(tmp_path, tiny_canine_config):
    path = tmp_path / "last.bin"
    save_checkpoint(path, "mixer", tiny_canine_config, own_system())
    state = torch.load(path)
    state["model_settings"]["max_len"] = 129
    torch.save(state, path)
    with pytest.raises(UsageError, match="max_len is 129, but its encoder has 128 positions"):
        load_model(path)


def test_the_best_weights_of_a_run_are_taken(tmp_path, tiny_canine_config):
    save_checkpoint(tmp_path / "last.bin", "mixer", tiny_canine_config)
    assert load_model(tmp_path).identity[0] == str(tmp_path / "last.bin")
    save_checkpoint(tmp_path / "best.bin", "mixer", tiny_canine_config)
    assert load_model(tmp_path).identity[0] == str(tmp_path / "best.bin")


def test_bare_weights_of_a_run_of_train_py_are_described_by_its_checkpoint(tmp_path, tiny_canine_config):
    model = save_checkpoint(tmp_path / "last.bin", "flat", tiny_canine_config, max_len=24)
    state = torch.load(tmp_path / "last.bin", weights_only=True)
    torch.save(state | {"best_weights": "mine.bin"}, tmp_path / "last.bin")
    assert load_model(tmp_path).identity[0] == str(tmp_path / "last.bin"), "before the first evaluation"
    best = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    torch.save(best, tmp_path / "mine.bin")
    torch.save(best, tmp_path / "Checkpointmine.bin")
    for name in (tmp_path, tmp_path / "mine.bin", tmp_path / "mine", tmp_path / "Checkpointmine.bin"):
        loaded = load_model(name)
        assert loaded.settings.max_len == 24
        assert torch.equal(loaded.model.out.bias, best["out.bias"])


def test_columns_are_named_after_the_systems_columns(tmp_path, tiny_canine_config):
    for columns, label in ((["pst_1", "pst_2"], "pst"), (["occ_code"], "occ_code"), (["a", "b"], "a")):
        save_checkpoint(tmp_path / "last.bin", "mixer", tiny_canine_config, own_system(columns))
        assert load_model(tmp_path).label == label
        assert load_model(tmp_path, system="mine").label == "mine"
    save_checkpoint(tmp_path / "last.bin", "mixer", tiny_canine_config, coding_system("occ1950"))
    assert load_model(tmp_path).label == "occ1950"


def test_text_is_treated_as_in_training(tmp_path, tiny_canine_config):
    for options, expected in (
        ({}, "Sømand Æ"),
        ({"lowercase": True}, "sømand æ"),
        ({"ascii_only": True}, "Somand Ae"),
        ({"lowercase": True, "ascii_only": True}, "somand ae"),
    ):
        save_checkpoint(tmp_path / "last.bin", "flat", tiny_canine_config, **options)
        found = OccCANINE(tmp_path, verbose=False)("Sømand Æ", behavior="fast")
        assert found["occ1"].tolist() == [f"unk[SEP]{expected}"]


# --- The original's files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixer", "flat", "seq2seq"])
@pytest.mark.parametrize("bare", [True, False])
def test_the_kind_of_an_original_file_follows_from_its_entries(tmp_path, tiny_canine_config, kind, bare):
    model = make(kind, tiny_canine_config)
    state = model.state_dict()
    torch.save(state if bare else {"model": state, "step": 3, "key": None}, tmp_path / "m.bin")
    loaded = load_model(tmp_path / "m", hub=False, encoder=tiny_canine_config)
    same_weights(loaded.model, model)
    assert loaded.settings.kind == kind
    assert loaded.system.name == "hisco"
    assert (loaded.settings.max_len, loaded.settings.lowercase, loaded.settings.ascii_only) == (128, True, True)


def test_an_original_file_with_a_narrow_decoder(tmp_path, tiny_canine_config):
    model = make("mixer", tiny_canine_config, decoder_dim_feedforward=8)
    torch.save(model.state_dict(), tmp_path / "m.bin")
    same_weights(load_model(tmp_path / "m.bin", encoder=tiny_canine_config).model, model)


@pytest.mark.parametrize("name", ["occ1950", "isco68"])
def test_fixed_systems_are_told_from_general_ones_by_their_alphabet(tmp_path, tiny_canine_config, name):
    key = {"010": 0, "123": 1} if name == "occ1950" else {"01010": 0, "06110": 1}
    fixed = coding_system(name).with_key(key)
    general = own_system().with_key(key)
    for system in (fixed, general):
        state = make("mixer", tiny_canine_config, system).state_dict()
        torch.save({"model": state, "key": key}, tmp_path / "m.bin")
        loaded = load_model(tmp_path / "m.bin", encoder=tiny_canine_config, system=name)
        assert loaded.system.name == system.name
        assert loaded.label == name


# --- The hub's --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    return home


@pytest.mark.parametrize(
    ("name", "kind"), [("OccCANINE", "flat"), ("OccCANINE_s2s", "seq2seq"), ("OccCANINE_s2s_mix", "mixer")]
)
def test_published_hisco_models(cache, tiny_canine_config, name, kind):
    model = publish(cache, f"Christianvedel/{name}", kind, tiny_canine_config)
    predictor = OccCANINE(name, encoder=tiny_canine_config, verbose=False)
    same_weights(predictor.model, model)
    assert predictor.model_type == {"mixer": "mix"}.get(kind, kind)
    found = predictor(["Smith"], lang="en", behavior="fast" if kind == "flat" else "good")
    assert found["occ1"].tolist() == ["en[SEP]smith"]
    assert found.columns[1] == "hisco_1"


ALPHABET = list("-0129BA")


@pytest.mark.parametrize(
    ("name", "characters"),
    [
        ("OccCANINE_OCCICEM", None),
        ("OccCANINE_ISCO68", ALPHABET),
        ("OccCANINE_OCC1950", {character: token for token, character in reversed(list(enumerate(ALPHABET, 5)))}),
    ],
)
def test_published_models_with_a_key(cache, tiny_canine_config, name, characters):
    label = PUBLISHED_SYSTEMS[name]
    system = own_system([f"{label}_{i}" for i in range(1, 5)], chars=characters and ALPHABET)
    files = {"key": dict(reversed(OWN_KEY.items()))} | ({"chars": characters} if characters else {})
    model = publish(cache, f"Christianvedel/{name}", "mixer", tiny_canine_config, system, **files)
    predictor = OccCANINE(name, encoder=tiny_canine_config, verbose=False)
    same_weights(predictor.model, model)
    assert predictor.codes_list == list(OWN_KEY), "in the order of the classes"
    assert predictor.formatter.map_char_idx == system.formatter.map_char_idx
    assert predictor(["Smith"], prediction_type="full").columns[1] == f"{label}_1"
    assert OccCANINE(name, encoder=tiny_canine_config, system="mine", verbose=False).system == "mine"


def test_a_model_of_the_hub_may_say_which_encoder_it_has(cache, tmp_path, tiny_canine_config):
    model = publish(
        cache, "me/mine", "mixer", tiny_canine_config, config={"encoder": encoder_settings(tiny_canine_config)}
    )
    same_weights(load_model("me/mine").model, model)
    tiny_canine_config.save_pretrained(tmp_path / "encoder")
    model = publish(cache, "me/other", "mixer", tiny_canine_config, config={"model_domain": str(tmp_path / "encoder")})
    same_weights(load_model("me/other").model, model)


def test_published_names_win_over_files_and_files_over_other_names(cache, tmp_path, tiny_canine_config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    published = publish(cache, "Christianvedel/OccCANINE", "flat", tiny_canine_config)
    publish(cache, "me/mine", "flat", tiny_canine_config)
    for name in ("OccCANINE", "me/mine"):
        save_checkpoint(Path(name) / "last.bin", "mixer", tiny_canine_config, max_len=40)
    same_weights(load_model("OccCANINE", encoder=tiny_canine_config).model, published)
    assert load_model("OccCANINE", hub=False).settings.max_len == 40
    assert load_model("me/mine").settings.max_len == 40


def test_nothing_but_the_model_is_asked_for(cache, tiny_canine_config, monkeypatch):
    """No tokenizer, no google/canine-s; and the answers are those of the same weights in a file."""
    asked = []
    download = huggingface_hub.hf_hub_download

    def hf_hub_download(repository, name, **options):
        asked.append((repository, name))
        return download(repository, name, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    model = publish(cache, "Christianvedel/OccCANINE_s2s_mix", "mixer", tiny_canine_config)
    found = OccCANINE(encoder=tiny_canine_config, verbose=False)(TEXTS, lang="en")
    names = ["model.safetensors", "config.json", "key.json", "chars.json"]
    assert asked == [("Christianvedel/OccCANINE_s2s_mix", name) for name in names]
    torch.save(model.state_dict(), cache / "same.bin")
    here = OccCANINE(cache / "same.bin", encoder=tiny_canine_config, verbose=False)(TEXTS, lang="en")
    pd.testing.assert_frame_equal(found, here)


# --- Bad input --------------------------------------------------------------------------------------------------------


def write(folder, content):
    path = folder / "m.bin"
    torch.save(content, path)
    return path


def test_names_that_lead_nowhere(cache, tmp_path):
    with pytest.raises(UsageError, match=r"OccCANINE_s2s is neither a file or folder here nor in the local cache"):
        load_model("OccCANINE_s2s")
    with pytest.raises(UsageError, match=r"me/none is neither a file or folder here .*Correct the path"):
        load_model("me/none")
    near = r"there is no such checkpoint \(did you mean 'OccCANINE_s2s_mix'.*published model: OccCANINE, OccCANINE_s2s,"
    with pytest.raises(UsageError, match=near):
        load_model("OccCANINE_s2s_mxi")
    with pytest.raises(UsageError, match=r"there is no such checkpoint \(a file or a folder\)"):
        load_model("OccCANINE", hub=False)
    with pytest.raises(UsageError, match=r"holds no model: neither checkpoints of a run nor an exported model"):
        load_model(tmp_path)


def test_a_misspelt_folder_is_no_model_of_the_hub(tmp_path, tiny_canine_config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "runs" / "parish" / "last.bin", "mixer", tiny_canine_config)
    with pytest.raises(UsageError, match=r"runs/parsh: there is no such checkpoint \(did you mean 'runs/parish'\?\)"):
        load_model("runs/parsh")


class Anything:
    pass


def test_files_that_are_no_model(tmp_path, tiny_canine_config):
    with pytest.raises(UsageError, match=r"m\.bin holds no weights"):
        load_model(write(tmp_path, {"step": 1}))
    with pytest.raises(UsageError, match=r"holds no model that predicts: its entries are not named so \(a is one\)"):
        load_model(write(tmp_path, {"a": torch.ones(1)}))
    (tmp_path / "m.bin").write_text("occ1,lang")
    with pytest.raises(UsageError, match=r"m\.bin: the file is damaged"):
        load_model(tmp_path / "m.bin")
    torch.save({"model": Anything()}, tmp_path / "m.bin")
    with pytest.raises(UsageError, match=r"the file holds more than tensors and plain values .*Anything"):
        load_model(tmp_path / "m.bin")
    bare_encoder = make("flat", tiny_canine_config).basemodel.state_dict()
    with pytest.raises(UsageError, match="holds no model that predicts"):
        load_model(write(tmp_path, bare_encoder))


def test_an_encoder_that_does_not_fit(tmp_path, tiny_canine_config):
    path = write(tmp_path, make("flat", tiny_canine_config).state_dict())
    with pytest.raises(UsageError, match=r"basemodel\..* is \[.*\] there and \[.*\] here.*trained with with encoder="):
        load_model(path)
    tiny_canine_config.num_hidden_layers = 3
    with pytest.raises(UsageError, match=r"layer\.2.* is missing there .* give another one with encoder="):
        load_model(path, encoder=tiny_canine_config)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match=r"does not describe a CANINE encoder \(encoder=\)"):
        load_model(path, encoder=tmp_path)
    with pytest.raises(UsageError, match=r"nowhere cannot be read"):
        load_model(path, encoder=tmp_path / "nowhere")


def test_a_decoder_with_an_alphabet_that_is_not_known(tmp_path, tiny_canine_config):
    state = make("mixer", tiny_canine_config, own_system(chars=ALPHABET)).state_dict()
    path = write(tmp_path, {"model": state, "key": OWN_KEY})
    message = r"writes 13 tokens, and the general alphabet makes 2,087: .* chars\.json beside its model\.safetensors"
    with pytest.raises(UsageError, match=message):
        load_model(path, encoder=tiny_canine_config, system="own")


def test_keys_that_do_not_fit(tmp_path, tiny_canine_config):
    state = make("mixer", tiny_canine_config, own_system()).state_dict()

    def loading(key, **options):
        return load_model(write(tmp_path, {"model": state, "key": key}), encoder=tiny_canine_config, **options)

    with pytest.raises(UsageError, match=r"no HISCO model: it has 4 codes, 01A, 02B, -1 among them.*system='name'"):
        loading(OWN_KEY)
    with pytest.raises(UsageError, match=r"no HISCO model: it has 4 codes\. Name its system"):
        loading(None)
    with pytest.raises(UsageError, match=r"has no key that says which code each class is: put a key\.csv"):
        loading(None, system="own")
    with pytest.raises(UsageError, match=r"has 4 classes and its key 3 codes"):
        loading({"a": 0, "b": 1, "c": 2}, system="own")
    for key in ({"a": 0, "b": 2}, {0: "a"}, [1], {}):
        with pytest.raises(
            UsageError, match=r"the entry 'key' of .*m\.bin is no key: the class of each code is needed"
        ):
            loading(key, system="own")
    write_key({"a": 0, "b": 1}, tmp_path / "key.csv")
    with pytest.raises(UsageError, match=r"has 4 classes and its key 2 codes"):
        loading(None, system="own")


def test_broken_files_of_the_hub(cache, tiny_canine_config):
    publish(cache, "me/key", "mixer", tiny_canine_config, own_system(), key=[1])
    with pytest.raises(UsageError, match=r"key\.json is no key"):
        load_model("me/key")
    publish(cache, "me/chars", "mixer", tiny_canine_config, own_system(), key=OWN_KEY, chars=[1])
    with pytest.raises(UsageError, match=r"chars\.json is no alphabet: a list of characters is needed"):
        load_model("me/chars")
    publish(cache, "me/config", "mixer", tiny_canine_config, own_system(), key=OWN_KEY, config=[1])
    with pytest.raises(UsageError, match=r"config\.json is no description of a model"):
        load_model("me/config")


def test_models_without_weights(tiny_canine_config):
    for kind, name in (("flat", "flat"), ("seq2seq", "seq2seq"), (None, "mix")):
        model = OccCANINE(skip_load=True, model_type=kind, encoder=tiny_canine_config, verbose=False)
        assert model.model_type == name
        assert len(model.codes_list) == 1919
    with pytest.raises(UsageError, match=r"model_type is 'mixer'; it must be one of 'flat', 'seq2seq', 'mix'"):
        OccCANINE(skip_load=True, model_type="mixer")
    with pytest.raises(UsageError, match=r"needs a system whose codes are known \(hisco, occ1950\), not 'pst'"):
        OccCANINE(skip_load=True, system="pst")


def test_the_baseline_has_the_pretrained_encoder(cache, tiny_canine_config, monkeypatch):
    from transformers import CanineModel

    pretrained = CanineModel(tiny_canine_config)
    monkeypatch.setattr("histocc.prediction.occ_canine.getModel", lambda: pretrained)
    model = OccCANINE(baseline=True, verbose=False)
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(model.model.state_dict()[f"encoder.{name}"], tensor)
