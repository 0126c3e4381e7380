"""The models' outputs, names, masks and limits."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.profiler import profile
from transformers import CanineModel

from histocc.errors import UsageError
from histocc.layers import TransformerDecoder
from histocc.layers.masking import create_mask
from histocc.model_assets import (
    CANINEOccupationClassifier,
    Seq2SeqMixerOccCANINE,
    Seq2SeqOccCANINE,
    load_model_from_checkpoint,
    load_tokenizer,
)
from tests.rounding import assert_equal_but_for_rounding, assert_more_than_rounding

DOMAIN = "Multilingual_CANINE"
NUM_CLASSES = [18] * 27  # K=5, S=5


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(32) < torch.tensor([32, 9, 20])[:, None]).long()
    ids = torch.randint(97, 123, (3, 32), generator=generator) * mask
    target = torch.randint(5, 18, (3, 27), generator=generator)
    target[0, 6:] = 1
    return ids, mask, target


@pytest.fixture
def mixer(tiny_canine_config):
    torch.manual_seed(0)
    return Seq2SeqMixerOccCANINE(DOMAIN, NUM_CLASSES, 1919, encoder=tiny_canine_config)


def inputs_of(batch):
    ids, mask, target = batch
    return ids, mask, target[:, :-1], *create_mask(target[:, :-1], 1)


def test_mixer_outputs(mixer, batch):
    out_seq2seq, out_linear = mixer(*inputs_of(batch))
    assert out_seq2seq.shape == (3, 26, 19)
    assert out_seq2seq.is_contiguous()
    assert out_linear.shape == (3, 1919)

    ids, mask, target = batch
    memory, pooled = mixer.encode(ids, mask)
    assert memory.shape == (3, 32, 32)
    assert pooled.shape == (3, 32)
    decoded = mixer.decode(memory, target[:, :-1], *create_mask(target[:, :-1], 1))
    assert_equal_but_for_rounding(decoded, out_seq2seq)
    assert_equal_but_for_rounding(mixer.forward_linear(ids, mask), out_linear)


def test_seq2seq_is_the_mixer_without_its_flat_head(mixer, batch, tiny_canine_config):
    model = Seq2SeqOccCANINE(DOMAIN, NUM_CLASSES, encoder=tiny_canine_config)
    shared = {name: t for name, t in mixer.state_dict().items() if not name.startswith("linear_decoder.")}
    model.load_state_dict(shared)
    assert_equal_but_for_rounding(model(*inputs_of(batch)), mixer(*inputs_of(batch))[0])
    assert_equal_but_for_rounding(model.encode(*batch[:2]), mixer.encode(*batch[:2])[0])


@pytest.mark.parametrize("fast", [True, False])
def test_flat_classifier(tiny_canine_config, batch, fast):
    torch.manual_seed(0)
    encoder = CanineModel(tiny_canine_config)
    expected = encoder(batch[0], batch[1]).pooler_output
    model = CANINEOccupationClassifier(7, DOMAIN, 0.0, encoder=encoder, fast_encoder=fast)
    assert {name.split(".")[0] for name in model.state_dict()} == {"basemodel", "out"}
    assert_equal_but_for_rounding(model(*batch[:2]), model.out(expected))


def test_decoder_is_torchs_own(batch):
    torch.manual_seed(0)
    decoder = TransformerDecoder(3, 32, 8, 19, 64).eval()
    memory, target = torch.randn(3, 32, 32), batch[2][:, :-1]
    causal, padding = create_mask(target, 1)

    reference = nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 8, 64, dropout=0.0), 3).eval()
    reference.load_state_dict(decoder.decoder.state_dict())
    embedded = decoder.token_emb.embedding(target.T) * 32**0.5 + decoder.positional_encoding.pos_embedding[:26]
    hidden = reference(embedded, memory.transpose(0, 1), tgt_mask=causal, tgt_key_padding_mask=padding)
    expected = decoder.head(hidden.transpose(0, 1))
    assert_equal_but_for_rounding(decoder(memory, target, causal, padding), expected)
    # The padding mask raises scores by one, it hides nothing: with another mask the numbers are others.
    assert_more_than_rounding(decoder(memory, target, causal), expected)
    alone = decoder(memory, target, None, padding)
    both = decoder(memory, target, torch.zeros(26, 26), padding)
    assert_equal_but_for_rounding(alone, both)


def test_dropout_of_the_heads(tiny_canine_config, batch):
    model = Seq2SeqMixerOccCANINE(DOMAIN, NUM_CLASSES, 1919, 0.5, 48, encoder=tiny_canine_config).train()
    layer = model.decoder.decoder.layers[0]
    assert layer.linear1.out_features == 48
    assert {m.p for m in model.decoder.modules() if isinstance(m, nn.Dropout)} == {0.5}
    _, out_linear = model(*inputs_of(batch))
    assert 0.4 < (out_linear == 0).float().mean() < 0.6  # on the logits themselves
    assert {m.p for m in model.encoder.modules() if isinstance(m, nn.Dropout)} == {0.0}


def test_labels_that_are_too_long(tiny_canine_config):
    Seq2SeqOccCANINE(DOMAIN, [18] * 129, encoder=tiny_canine_config)
    with pytest.raises(UsageError, match=r"130 tokens long.*at most 129.*--block-size"):
        Seq2SeqOccCANINE(DOMAIN, [18] * 130, encoder=tiny_canine_config)


def test_width_that_the_heads_do_not_divide(tiny_canine_config):
    tiny_canine_config.hidden_size = 36
    with pytest.raises(UsageError, match=r"hidden size is 36.*multiple of 8"):
        Seq2SeqOccCANINE(DOMAIN, NUM_CLASSES, encoder=tiny_canine_config)


def test_a_step_does_not_wait_for_the_device(mixer, batch):
    inputs = inputs_of(batch)
    with profile() as trace:
        out_seq2seq, out_linear = mixer(*inputs)
        (out_seq2seq.mean() + out_linear.mean()).backward()
    waiting = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}
    assert not waiting & {event.key for event in trace.key_averages()}


def test_bfloat16_autocast_stays_close(mixer, batch):
    mixer.train()
    expected = mixer(*inputs_of(batch))
    with torch.autocast("cpu", torch.bfloat16):
        got = mixer(*inputs_of(batch))
    for ours, exact in zip(got, expected):
        assert ours.dtype == torch.bfloat16
        assert ours.isfinite().all()
        assert (ours.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.compiler
def test_one_graph_for_the_compiler(mixer, batch):
    compiled = torch.compile(mixer, fullgraph=True, backend="eager")  # an error on anything that breaks the graph
    expected = mixer(*inputs_of(batch))
    for ours, exact in zip(compiled(*inputs_of(batch)), expected):
        assert_equal_but_for_rounding(ours, exact)


@pytest.mark.parametrize("ending", ["", ".bin"])
def test_load_model_from_checkpoint(tmp_path, tiny_canine_config, batch, ending):
    saved = CANINEOccupationClassifier(7, DOMAIN, 0.0, encoder=tiny_canine_config)
    torch.save(saved.state_dict(), tmp_path / "model.bin")
    fresh = CANINEOccupationClassifier(7, DOMAIN, 0.0, encoder=tiny_canine_config)
    model, tokenizer = load_model_from_checkpoint(str(tmp_path / "model") + ending, fresh, DOMAIN)
    assert model is fresh
    assert_equal_but_for_rounding(model(*batch[:2]), saved(*batch[:2]))
    assert tokenizer("æ")["input_ids"] == [0xE000, ord("æ"), 0xE001]

    other = CANINEOccupationClassifier(8, DOMAIN, 0.0, encoder=tiny_canine_config)
    with pytest.raises(UsageError, match=r"(?s)does not fit a CANINEOccupationClassifier.*out\.weight"):
        load_model_from_checkpoint(tmp_path / "model.bin", other, DOMAIN)


def test_tokenizer_needs_no_files():
    encoded = load_tokenizer()("da[SEP]smed", padding="max_length", max_length=16, truncation=True)
    assert encoded["input_ids"] == [0xE000, *map(ord, "da[SEP]smed"), 0xE001, 0, 0, 0]
    assert encoded["attention_mask"] == [1] * 13 + [0] * 3


def test_transformers_is_left_alone_until_needed():
    code = "import sys, histocc.model_assets, histocc.weights; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
