"""Initial weights: what is taken over from which file, and which files are refused."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CanineModel

from histocc.datasets import hisco_codes
from histocc.errors import UsageError
from histocc.model_assets import CANINEOccupationClassifier, Seq2SeqMixerOccCANINE, Seq2SeqOccCANINE
from histocc.weights import load_initial_weights, read_state_dict

DOMAIN = "Multilingual_CANINE"
HISCO = [18] * 27
GENERAL = [2086] * 12


@pytest.fixture
def mixer(tiny_canine_config):
    def build(num_classes=HISCO, num_classes_flat=1919, seed=0, **arguments):
        torch.manual_seed(seed)
        return Seq2SeqMixerOccCANINE(DOMAIN, num_classes, num_classes_flat, encoder=tiny_canine_config, **arguments)

    return build


@pytest.fixture
def published(golden):
    """Weights under the original's names."""
    return load_file(golden / "trajectories" / "hisco_no_warmup_init.safetensors")


def checkpoint(state, key=None):
    return {"model": state, "optimizer": {"state": {}}, "scheduler": {"last_epoch": 3}, "step": 7, "key": key}


def assert_same(model, state, *prefixes):
    own = model.state_dict()
    for name, tensor in state.items():
        if name.startswith(prefixes):
            torch.testing.assert_close(own[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["checkpoint", "bare", "safetensors", "wrapped", "without ending", "folder"])
def test_forms_of_files(tmp_path, mixer, published, form):
    path = tmp_path / "weights.bin"
    if form == "checkpoint":
        torch.save(checkpoint(published), path)
    elif form == "wrapped":
        torch.save(checkpoint({f"module._orig_mod.{name}": t for name, t in published.items()}), path)
    elif form in ("safetensors", "folder"):
        path = tmp_path / "model.safetensors"
        save_file(published, path)
    else:
        torch.save(published, path)
    if form == "without ending":
        path = tmp_path / "weights"
    if form == "folder":
        path = tmp_path
    model = mixer()
    summary = load_initial_weights(model, path)
    assert_same(model, published, "")
    assert (summary.decoder, summary.head_carried, summary.new_classes, summary.dropped) == (True, 1919, 0, 0)
    assert summary.entries + 2 == len(published)
    line = f"{path}: encoder and decoder taken over (140 entries); flat head: 1,919 classes carried over, 0 start fresh"
    assert str(summary) == f"initial weights from {line}"


def test_rest_of_the_checkpoint_is_returned(tmp_path, published):
    # Old versions of transformers saved the positions; they are no weights.
    state = published | {"encoder.char_embeddings.position_ids": torch.arange(9)}
    torch.save(checkpoint(state, {"a": 0}), tmp_path / "x.bin")
    read, extras = read_state_dict(tmp_path / "x.bin")
    assert read.keys() == published.keys()
    assert (extras["step"], extras["key"]) == (7, {"a": 0})


def test_flat_head_goes_code_by_code(tmp_path, mixer):
    source = mixer(GENERAL, 4, seed=1)
    torch.save(checkpoint(source.state_dict(), {"x1": 0, "x2": 1, 3: 2, "gone": 3}), tmp_path / "a.bin")
    model = mixer(GENERAL, 5, seed=2)
    fresh = model.linear_decoder.weight.detach().clone()
    summary = load_initial_weights(model, tmp_path / "a.bin", key={"new": 0, "x2": 1, "3": 2, "x1": 3, "newer": 4})
    theirs, ours = source.linear_decoder, model.linear_decoder
    torch.testing.assert_close(ours.weight[[1, 2, 3]], theirs.weight[[1, 2, 0]], rtol=0, atol=0)
    torch.testing.assert_close(ours.bias[[1, 2, 3]], theirs.bias[[1, 2, 0]], rtol=0, atol=0)
    torch.testing.assert_close(ours.weight[[0, 4]], fresh[[0, 4]], rtol=0, atol=0)
    assert (summary.head_carried, summary.new_classes, summary.dropped) == (3, 2, 1)
    assert "3 classes carried over, 2 start fresh, 1 of the source are not used" in str(summary)
    assert_same(model, source.state_dict(), "encoder.", "decoder.")


def test_hisco_rows_are_known_without_a_key(tmp_path, tiny_canine_config):
    torch.manual_seed(0)
    source = CANINEOccupationClassifier(1919, DOMAIN, encoder=tiny_canine_config)
    torch.save(source.state_dict(), tmp_path / "flat.bin")
    model = CANINEOccupationClassifier(3, DOMAIN, encoder=tiny_canine_config)
    summary = load_initial_weights(model, tmp_path / "flat.bin", key={"99999": 0, "?": 1, "01110": 2})
    assert (summary.head_carried, summary.new_classes, summary.dropped) == (2, 1, 1917)
    rows = [hisco_codes().index(code) for code in ("99999", "01110")]
    assert rows == [1918, 3]
    torch.testing.assert_close(model.out.weight[[0, 2]], source.out.weight[rows], rtol=0, atol=0)


def test_unknown_classes(tmp_path, mixer):
    source = mixer(GENERAL, 6, seed=1)
    torch.save(source.state_dict(), tmp_path / "a.bin")
    summary = load_initial_weights(mixer(GENERAL, 4), tmp_path / "a.bin", key=dict(zip("abcd", range(4))))
    assert (summary.head_carried, summary.new_classes) == (0, 4)
    assert "its 6 classes have no key, so none could be matched" in str(summary)
    summary = load_initial_weights(mixer(GENERAL, 6), tmp_path / "a.bin", key=dict(zip("abcdef", range(6))))
    assert summary.head_carried == 6
    assert "taken to be those of this run" in str(summary)


def test_flat_classifier_gives_encoder_and_head(tmp_path, mixer, tiny_canine_config):
    torch.manual_seed(4)
    source = CANINEOccupationClassifier(1919, DOMAIN, encoder=tiny_canine_config)
    torch.save(source.state_dict(), tmp_path / "flat.bin")
    model = mixer()
    decoder = {name: t.clone() for name, t in model.state_dict().items() if name.startswith("decoder.")}
    summary = load_initial_weights(model, tmp_path / "flat.bin")
    assert (summary.decoder, summary.head_carried) == (False, 1919)
    assert "decoder starts fresh" in str(summary)
    assert_same(model, decoder, "decoder.")
    assert_same(model.encoder, source.basemodel.state_dict(), "")
    torch.testing.assert_close(model.linear_decoder.weight, source.out.weight, rtol=0, atol=0)


def test_bare_encoder_and_other_models(tmp_path, mixer, published, tiny_canine_config):
    encoder = CanineModel(tiny_canine_config)
    save_file(encoder.state_dict(), tmp_path / "canine.safetensors")
    model = mixer()
    summary = load_initial_weights(model, tmp_path / "canine.safetensors")
    assert_same(model.encoder, encoder.state_dict(), "")
    assert "it has no flat head" in str(summary)

    save_file(published, tmp_path / "mixer.safetensors")
    decoder_only = Seq2SeqOccCANINE(DOMAIN, HISCO, encoder=tiny_canine_config)
    summary = load_initial_weights(decoder_only, tmp_path / "mixer.safetensors")
    assert (summary.decoder, summary.head_carried) == (True, None)
    assert_same(decoder_only, published, "encoder.", "decoder.")


def test_decoder_of_another_vocabulary(tmp_path, mixer, published):
    torch.save(checkpoint(published), tmp_path / "hisco.bin")
    model = mixer(GENERAL, 60)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    key = {str(i): i for i in range(60)}
    with pytest.raises(UsageError, match=r"hisco\.bin writes 19 tokens.* has 2087.*--only-encoder"):
        load_initial_weights(model, tmp_path / "hisco.bin", key=key)
    assert_same(model, before, "")

    summary = load_initial_weights(model, tmp_path / "hisco.bin", only_encoder=True, key=key)
    assert_same(model, published, "encoder.")
    assert_same(model, before, "decoder.", "linear_decoder.")
    assert str(summary).endswith("hisco.bin: encoder taken over (82 entries)")


def test_decoder_of_another_width(tmp_path, mixer, published):
    torch.save(published, tmp_path / "a.bin")
    with pytest.raises(UsageError, match=r"linear1\.weight is \[32, 32\] there, \[64, 32\] here.*--only-encoder"):
        load_initial_weights(mixer(decoder_dim_feedforward=64), tmp_path / "a.bin")


def test_encoder_of_another_size(tmp_path, mixer, published, tiny_canine_config):
    torch.save(published, tmp_path / "a.bin")
    tiny_canine_config.hidden_size = 64
    with pytest.raises(UsageError, match=r"hidden size 32 and 2 layers, this run's has 64 and 2 .*--encoder"):
        load_initial_weights(mixer(), tmp_path / "a.bin", only_encoder=True)
    tiny_canine_config.hidden_size = 32
    tiny_canine_config.num_hidden_layers = 1
    with pytest.raises(UsageError, match=r"larger than this run's: it has encoder\.layer\.1.*--encoder"):
        load_initial_weights(mixer(), tmp_path / "a.bin")


class CreatesFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_objects_are_refused_unexecuted(tmp_path, mixer, published, zipped):
    content = checkpoint(published) | {"extra": CreatesFile(tmp_path / "proof")}
    torch.save(content, tmp_path / "evil.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=r"(?s)evil\.bin.*could run code.*refused"):
        load_initial_weights(mixer(), tmp_path / "evil.bin")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("name", ["a.bin", "a.safetensors"])
@pytest.mark.parametrize("kept", [0, 1000, -1000])
def test_truncated_files_are_named(tmp_path, mixer, published, name, kept):
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(published, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=rf"{name}: the file "):
        load_initial_weights(mixer(), path)


def test_files_that_hold_no_such_weights(tmp_path, mixer):
    torch.save({"model": {"layer.weight": torch.ones(2)}}, tmp_path / "other.bin")
    with pytest.raises(UsageError, match=r"other\.bin is no checkpoint.* lacks 82 of the encoder's 82"):
        load_initial_weights(mixer(), tmp_path / "other.bin")
    torch.save([1, 2], tmp_path / "list.bin")
    with pytest.raises(UsageError, match=r"list\.bin holds no weights"):
        load_initial_weights(mixer(), tmp_path / "list.bin")
    with pytest.raises(UsageError, match=r"absent: there is no such checkpoint .*occ-canine-v1"):
        load_initial_weights(mixer(), tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        UsageError, match=r"folder holds no weights: neither model\.safetensors, pytorch_model\.bin nor the best"
    ):
        load_initial_weights(mixer(), tmp_path / "folder")
    for name in ("last.bin", "best.bin"):
        torch.save(mixer().state_dict(), tmp_path / "folder" / name)
        summary = load_initial_weights(mixer(), tmp_path / "folder")
        assert summary.source == str(tmp_path / "folder" / name)
    flat = tmp_path / "flat"
    flat.mkdir()
    torch.save({"model": mixer().state_dict(), "best_weights": "mine.bin"}, flat / "last.bin")
    torch.save(mixer().state_dict(), flat / "mine.bin")
    assert load_initial_weights(mixer(), flat).source == str(flat / "mine.bin")
