"""Pretrained parts from the Hugging Face cache and from folders, in processes that see only a cache of ours."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CanineConfig, CanineModel

from histocc import weights
from histocc.errors import UsageError
from histocc.files.hub import why_out_of_reach
from histocc.model_assets import (
    CANINEOccupationClassifier_hub,
    Seq2SeqMixerOccCANINE_hub,
    Seq2SeqOccCANINE_hub,
    encoder_settings,
    getModel,
)
from histocc.prediction.loading import load_model
from tests.hub_cache import cached_repository, use_cache

ROOT = Path(__file__).parents[2]


def run_offline(code, cache, *arguments):
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def encoder(tiny_canine_config):
    torch.manual_seed(0)
    return CanineModel(tiny_canine_config)


@pytest.fixture
def cache(tmp_path, encoder):
    cache = tmp_path / "cache"
    encoder.save_pretrained(cached_repository(cache, "google/canine-s"))
    # The published flat classifier: names as in CANINEOccupationClassifier_hub.
    state = {f"basemodel.{name}": tensor + 1 for name, tensor in encoder.state_dict().items()}
    state |= {"out.weight": torch.randn(1919, 32), "out.bias": torch.randn(1919)}
    published = cached_repository(cache, "christianvedel/OccCANINE")
    save_file(state, published / "model.safetensors")
    return cache


LOAD = """
import sys, torch
from histocc.model_assets import CANINEOccupationClassifier, Seq2SeqMixerOccCANINE, load_tokenizer
from histocc.weights import load_initial_weights
model = Seq2SeqMixerOccCANINE("Multilingual_CANINE", [18] * 27, 1919)
flat = CANINEOccupationClassifier(5, "google/canine-s", 0.1)
state = dict(model.state_dict())
torch.save({name: tensor.clone() for name, tensor in state.items()}, sys.argv[1])
print(load_tokenizer("Multilingual_CANINE")("ab")["input_ids"])
print(load_initial_weights(model, "OCC-CANINE-v1"))
torch.save(model.state_dict(), sys.argv[2])
"""


def test_from_the_cache(cache, encoder, tmp_path):
    done = run_offline(LOAD, cache, tmp_path / "fresh.pt", tmp_path / "loaded.pt")
    assert done.returncode == 0, done.stderr
    assert "[57344, 97, 98, 57345]" in done.stdout
    assert "initial weights from OCC-CANINE-v1: encoder taken over (82 entries)" in done.stdout
    assert "decoder starts fresh; flat head: 1,919 classes carried over" in done.stdout
    fresh, loaded = torch.load(tmp_path / "fresh.pt"), torch.load(tmp_path / "loaded.pt")
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(fresh[f"encoder.{name}"], tensor, rtol=0, atol=0)
        torch.testing.assert_close(loaded[f"encoder.{name}"], tensor + 1, rtol=0, atol=0)


def test_what_cannot_be_reached_is_named(monkeypatch):
    with pytest.raises(
        UsageError, match=r"'no/such-model' is neither a local folder nor in .*as model_domain.*encoder="
    ):
        getModel("no/such-model")
    with pytest.raises(UsageError, match=r"'no/such-model' is neither .*--encoder FOLDER.*--encoder demo"):
        getModel("no/such-model", flag="--encoder")
    monkeypatch.setitem(weights.PUBLISHED_MODELS, "occ-canine-v1", "no/such-model")
    with pytest.raises(UsageError, match=r"no/such-model are not in the local cache .*--initial-checkpoint"):
        weights.load_initial_weights(None, "occ-canine-v1")


@pytest.fixture
def no_network(monkeypatch):
    """A machine that knows no address; the names that it was asked for."""
    for name in ("http", "https", "all"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked = []

    def fail(host, *_, **__):
        asked.append(host)
        raise socket.gaierror("Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    return asked


@pytest.mark.parametrize(
    "load",
    [
        lambda: getModel("no/such-model"),
        lambda: weights.load_initial_weights(None, "occ-canine-v1"),
        lambda: load_model("no/such-model"),
        lambda: load_model("no/such-model", force_download=True),
    ],
    ids=["encoder", "initial weights", "model", "model anew"],
)
def test_without_a_network_nothing_is_tried_again_and_again(load, no_network, monkeypatch, tmp_path):
    use_cache(monkeypatch, tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("somebody waits for a network"))
    with pytest.raises(UsageError, match=r"no network, or none that knows huggingface\.co|cannot be reached"):
        load()
    assert set(no_network) == {"huggingface.co"}


def test_without_a_network_the_cache_is_enough(no_network, cache, encoder, monkeypatch):
    use_cache(monkeypatch, cache)
    assert torch.equal(getModel().pooler.dense.weight, encoder.pooler.dense.weight)
    assert len(no_network) == 1


def test_behind_a_proxy_nobody_asks_for_an_address(no_network, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    assert why_out_of_reach() is None
    assert not no_network


def test_a_name_that_is_a_place_on_the_disk_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "canine-s").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"'models/canine' is not there: .*folder \(did you mean 'canine-s'\?\)"):
        getModel("models/canine")
    with pytest.raises(UsageError, match=r"'a/b/c' is not there: there is no such folder, and it is no name"):
        getModel("a/b/c")


def test_from_a_folder(tmp_path, encoder):
    encoder.half().save_pretrained(tmp_path)
    loaded = getModel(str(tmp_path))
    assert loaded.dtype == torch.float32
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor.float(), rtol=0, atol=0)


def test_folders_that_are_no_encoder(tmp_path, encoder):
    with pytest.raises(UsageError, match=r"has no config\.json of a model; a CANINE model is needed.*as model_domain"):
        getModel(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UsageError, match="is a 'bert' model; a CANINE"):
        getModel(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"holds no encoder that can be read.*as model_domain"):
        getModel(str(tmp_path))
    encoder.save_pretrained(tmp_path)
    state = {name: t for name, t in encoder.state_dict().items() if not name.startswith("pooler.")}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks 2 of CANINE's weights, pooler\.dense\.bias for one"):
        getModel(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:999])
    with pytest.raises(UsageError, match="holds no encoder that can be read"):
        getModel(str(tmp_path))
    CanineConfig(hidden_size=64, num_attention_heads=4).save_pretrained(tmp_path)
    save_file(encoder.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="holds no encoder that can be read"):
        getModel(str(tmp_path))


@pytest.mark.parametrize(
    ("model_class", "sizes"),
    [
        (CANINEOccupationClassifier_hub, {"n_classes": 7, "dropout_rate": 0.1}),
        (Seq2SeqOccCANINE_hub, {"num_classes": [18] * 27}),
        (Seq2SeqMixerOccCANINE_hub, {"num_classes": [18] * 27, "num_classes_flat": 7, "decoder_dim_feedforward": 48}),
    ],
)
def test_hub_variants_come_back_as_saved(tmp_path, encoder, model_class, sizes):
    encoder.save_pretrained(tmp_path / "encoder")
    model = model_class({"model_domain": str(tmp_path / "encoder"), **sizes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model.save_pretrained(tmp_path / "saved")
    again = model_class.from_pretrained(tmp_path / "saved")
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_published_model_fetches_no_encoder_to_overwrite_it(tmp_path, tiny_canine_config, monkeypatch):
    """All weights come with the model, so that its encoder is made from its configuration, without a network."""
    config = {"model_domain": "Multilingual_CANINE", "n_classes": 3, "encoder": encoder_settings(tiny_canine_config)}
    model = CANINEOccupationClassifier_hub(config)
    model.save_pretrained(tmp_path / "model")

    def fetched(*_):
        raise AssertionError("the pretrained encoder was asked for")

    monkeypatch.setattr("histocc.model_assets.getModel", fetched)
    again = CANINEOccupationClassifier_hub.from_pretrained(tmp_path / "model")
    assert torch.equal(again.out.weight, model.out.weight)
    # A model published by the original does not say which encoder it has: CANINE-s.
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    described.pop("encoder")
    (tmp_path / "model" / "config.json").write_text(json.dumps(described))
    sizes = []
    monkeypatch.setattr(
        "histocc.model_assets.encoder_config", lambda entries: sizes.append(entries) or tiny_canine_config
    )
    CANINEOccupationClassifier_hub.from_pretrained(tmp_path / "model")
    assert sizes == [{}]
