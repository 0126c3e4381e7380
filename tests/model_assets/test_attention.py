"""The encoder as we run it against transformers' own forward."""

import copy

import pytest
import torch
from torch.profiler import profile
from transformers import CanineConfig, CanineModel

from histocc.layers.attention import use_fused_attention
from histocc.layers.canine import encode, encode_pooled
from tests.rounding import assert_equal_but_for_rounding, assert_more_than_rounding


def config(**changes):
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_hash_functions": 4,
        "num_hash_buckets": 256,  # as many positions, too
        "max_position_embeddings": 256,
    }
    # The default spread of the weights is so small that a wrong mask would hide among the roundings.
    return CanineConfig(**(sizes | {"initializer_range": 0.3} | changes))


def make_batch(length, lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(length) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(32, 0x3000, (len(lengths), length), generator=generator) * mask
    return ids, mask


@pytest.fixture
def plain():
    torch.manual_seed(0)
    return CanineModel(config()).eval()


@pytest.fixture
def fused(plain):
    return use_fused_attention(copy.deepcopy(plain))


def test_conversion_keeps_names_and_values(plain, fused):
    assert list(plain.state_dict()) == list(fused.state_dict())
    assert use_fused_attention(fused) is fused
    fused.load_state_dict(plain.state_dict())


def assert_same_gradients(ours, theirs):
    largest = max(p.grad.abs().max().item() for p in theirs.parameters() if p.grad is not None)
    for (name, got), expected in zip(ours.named_parameters(), theirs.parameters()):
        assert (got.grad is None) == (expected.grad is None), name
        if got.grad is not None:
            # The true gradient of a key's bias is zero: what is there is rounding of other gradients.
            assert_equal_but_for_rounding(got.grad, expected.grad, name, at_least=0.01 * largest)


# 200 characters take two windows of local attention, the second one all padding for the shorter text; 30 is no
# multiple of the downsampling rate; 2 characters are [CLS] and [SEP] alone.
@pytest.mark.parametrize(("length", "lengths"), [(48, [2, 17, 48]), (128, [128, 5]), (30, [30, 9]), (200, [200, 20])])
def test_same_numbers_and_gradients_as_transformers(plain, fused, length, lengths):
    ids, mask = make_batch(length, lengths)
    expected = plain(input_ids=ids, attention_mask=mask)
    direct = fused(input_ids=ids, attention_mask=mask)
    memory, pooled = encode(fused, ids, mask)
    for got_memory, got_pooled in ((direct.last_hidden_state, direct.pooler_output), (memory, pooled)):
        assert_equal_but_for_rounding(got_memory, expected.last_hidden_state)
        assert_equal_but_for_rounding(got_pooled, expected.pooler_output)
    for got, wanted in zip(encode(fused, ids, torch.ones_like(mask)), (expected.last_hidden_state, pooled)):
        assert_more_than_rounding(got, wanted)  # had the mask no effect

    weights = torch.randn_like(memory)
    ((memory * weights).mean() + pooled.square().mean()).backward()
    ((expected.last_hidden_state * weights).mean() + expected.pooler_output.square().mean()).backward()
    assert_same_gradients(fused, plain)


def test_works_on_transformers_own_attention(plain):
    ids, mask = make_batch(48, [48, 7])
    expected = plain(input_ids=ids, attention_mask=mask)
    memory, pooled = encode(plain, ids, mask)
    assert_equal_but_for_rounding(memory, expected.last_hidden_state)
    assert_equal_but_for_rounding(encode_pooled(plain, ids, mask), pooled)


def test_attention_weights_on_request(plain, fused):
    ids, mask = make_batch(16, [16, 6])
    expected = plain(input_ids=ids, attention_mask=mask, output_attentions=True)
    got = fused(input_ids=ids, attention_mask=mask, output_attentions=True)
    assert len(got.attentions) == len(expected.attentions) == 5
    for ours, theirs in zip(got.attentions, expected.attentions):
        assert_equal_but_for_rounding(ours, theirs)
        assert_more_than_rounding(ours.mean(-1, keepdim=True).expand_as(ours), theirs)  # had all keys equal weights


def test_dropout_is_that_of_the_configuration():
    torch.manual_seed(0)
    plain = CanineModel(config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.4)).train()
    fused = use_fused_attention(copy.deepcopy(plain))
    assert fused.encoder.layer[0].attention.self.training
    ids, mask = make_batch(16, [16, 11])
    torch.manual_seed(3)
    expected = plain(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.manual_seed(3)
    assert_equal_but_for_rounding(encode(fused, ids, mask)[0], expected)
    assert_more_than_rounding(encode(fused, ids, mask)[0], expected)  # with other random numbers
    fused.eval(), plain.eval()
    assert_more_than_rounding(encode(fused, ids, mask)[0], expected)  # without dropout
    assert_equal_but_for_rounding(encode(fused, ids, mask)[0], plain(ids, mask).last_hidden_state)


def test_pooled_alone_is_exact_without_padding(plain, fused):
    lengths = [21, 2, 13]
    ids, mask = make_batch(128, lengths)
    expected = plain(input_ids=ids, attention_mask=mask).pooler_output
    expected.square().mean().backward()
    for length in (24, 28, 128):
        fused.zero_grad()
        pooled = encode_pooled(fused, ids[:, :length], mask[:, :length])
        assert_equal_but_for_rounding(pooled, expected)
        pooled.square().mean().backward()
        assert_same_gradients(fused, plain)
        # What the pooled encoding does not depend on has no gradient at all, in the complete model too, so that AdamW
        # leaves it alone, weight decay included.
        without = {name for name, parameter in fused.named_parameters() if parameter.grad is None}
        names = [name for name, _ in fused.named_parameters()]
        assert without == {name for name in names if name.startswith(("projection.", "final_char_encoder."))}


def test_relative_positions_are_refused(plain):
    plain.config.position_embedding_type = "relative_key"
    with pytest.raises(ValueError, match="absolute positions"):
        use_fused_attention(plain)


@pytest.mark.parametrize("run", [encode, encode_pooled])
def test_nothing_waits_for_the_device(fused, run):
    ids, mask = make_batch(48, [48, 5])
    with profile() as trace:
        run(fused, ids, mask)
    waiting = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"}
    assert not waiting & {event.key for event in trace.key_averages()}
