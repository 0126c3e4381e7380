"""Decoding against a plain loop that calls torch's decoder on the growing prefix, and what it must not do again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from histocc.decoding.blocks import block_probabilities
from histocc.decoding.flat import flat_logits, pooled_encodings
from histocc.decoding.full_search import full_search
from histocc.decoding.greedy import greedy_decode
from histocc.decoding.memory import DecoderMemory
from histocc.decoding.top_k import greedy_top_k
from histocc.decoding.trie import CodeTrie
from histocc.formatter import BOS_IDX, PAD_IDX
from histocc.layers.decoder import TransformerDecoder
from histocc.model_assets import CANINEOccupationClassifier, Seq2SeqMixerOccCANINE, Seq2SeqOccCANINE
from tests.oracles import plain_decoding as plain

LENGTH, VOCABULARY, WIDTH = 8, 12, 32
# Float32 after three layers, in another order of operations.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class OnlyDecoder(torch.nn.Module):
    """What a model has for the plain loop."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.decoder = TransformerDecoder(3, WIDTH, 8, VOCABULARY, 24).eval()
        with torch.no_grad():
            for parameter in self.parameters():  # untrained decoders write one token only
                parameter.add_(torch.randn_like(parameter) * 0.3)
            self.decoder.head.bias[PAD_IDX] += 5  # which labels are full of


@pytest.fixture(scope="module")
def model():
    return OnlyDecoder()


@pytest.fixture(scope="module")
def encoded():
    torch.manual_seed(4)
    return torch.randn(7, 16, WIDTH) * 2


@pytest.fixture(scope="module")
def memory(model, encoded):
    return DecoderMemory(model.decoder, encoded)


def codes_of(rng, number, size, alphabet=(5, VOCABULARY)):
    return rng.integers(*alphabet, (number, size))


def test_greedy(model, encoded, memory):
    tokens, probabilities = plain.greedy(model, encoded, LENGTH)
    found = greedy_decode(memory, LENGTH)
    assert len({tuple(row) for row in tokens.tolist()}) > 1, "the texts are told apart"
    assert torch.equal(found.tokens, tokens)
    torch.testing.assert_close(found.probabilities, probabilities, **CLOSE)


def test_rounds_forbid_the_least_sure_token(model, encoded, memory):
    forbidden, later_padding = [set() for _ in range(len(encoded))], 0
    rounds = greedy_top_k(memory, LENGTH, 4)
    for number in range(4):
        tokens, probabilities = plain.greedy(model, encoded, LENGTH, forbidden)
        assert torch.equal(rounds.tokens[number], tokens)
        torch.testing.assert_close(rounds.probabilities[number], probabilities, **CLOSE)
        for row, (own, sure) in enumerate(zip(tokens.tolist(), probabilities.tolist())):
            first_pad = own.index(PAD_IDX) if PAD_IDX in own else LENGTH
            counted = [i for i, token in enumerate(own) if token != PAD_IDX or i == first_pad]
            least = min(counted, key=lambda i: sure[i])
            later_padding += min(sure) < sure[least]
            forbidden[row].add((least, own[least]))
    assert not torch.equal(rounds.tokens[0], rounds.tokens[1])
    assert later_padding, "a PAD that does not count was nowhere the least sure token"


@pytest.mark.parametrize("budget", [None, 1, 20_000])
def test_full_search(model, encoded, memory, budget):
    blocks = codes_of(np.random.default_rng(1), 40, 3)
    blocks[7] = blocks[3]  # two codes of the same spelling
    found = full_search(memory, CodeTrie(blocks), *([] if budget is None else [budget]))
    np.testing.assert_allclose(found, plain.full_search(model, encoded, blocks), **CLOSE)
    assert torch.equal(found[:, 7], found[:, 3])


def test_all_codes_of_an_alphabet_have_a_probability_of_one(memory):
    blocks = np.stack(np.meshgrid(*[np.arange(VOCABULARY)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    total = full_search(memory, CodeTrie(blocks)).sum(dim=1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=0)


def test_codes_of_ones_own(memory):
    blocks = codes_of(np.random.default_rng(2), 12, 4)
    found = block_probabilities(memory, torch.from_numpy(blocks).expand(len(memory), -1, -1))
    torch.testing.assert_close(found, full_search(memory, CodeTrie(blocks)), **CLOSE)
    mixed = np.random.default_rng(3).permuted(np.tile(np.arange(12), (len(memory), 1)), axis=1)[:, :5]
    some = block_probabilities(memory, torch.from_numpy(blocks[mixed]))
    torch.testing.assert_close(some, found.gather(1, torch.from_numpy(mixed)), **CLOSE)


def test_rows_of_a_memory(memory):
    whole = greedy_decode(memory, LENGTH)
    for rows in (slice(2, 5), torch.tensor([6, 0, 6])):
        part = greedy_decode(memory.rows(rows), LENGTH)
        assert torch.equal(part.tokens, whole.tokens[rows])
        torch.testing.assert_close(part.probabilities, whole.probabilities[rows], **CLOSE)


@pytest.mark.parametrize("fast", [True, False])
def test_the_flat_head_needs_no_padding(tiny_canine_config, fast):
    torch.manual_seed(0)
    width = tiny_canine_config.hidden_size
    models = [
        CANINEOccupationClassifier(6, encoder=tiny_canine_config, dropout_rate=0.5, fast_encoder=fast).eval(),
        Seq2SeqMixerOccCANINE("", [VOCABULARY] * LENGTH, 6, encoder=tiny_canine_config, dropout_rate=0.5).eval(),
        Seq2SeqOccCANINE("", [VOCABULARY] * LENGTH, encoder=tiny_canine_config).eval(),
    ]
    ids, mask = plain.tokenize(["en[SEP]smith", "da[SEP]husmand og fisker"], 64)
    for model in models:
        pooled = pooled_encodings(model, ids[:, :28], mask[:, :28])
        assert pooled.shape == (2, width)
        torch.testing.assert_close(pooled, plain.encode(model, ids, mask)[1], **CLOSE)
        if not isinstance(model, Seq2SeqOccCANINE) or isinstance(model, Seq2SeqMixerOccCANINE):
            torch.testing.assert_close(flat_logits(model, pooled), plain.flat(model, ids, mask), **CLOSE)


# --- The tree of codes ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.integers(1, 4).flatmap(
        lambda size: st.lists(st.lists(st.integers(0, 3), min_size=size, max_size=size), min_size=1, max_size=30)
    ),
    most=st.integers(1, 9),
)
def test_the_tree_has_each_beginning_once(blocks, most):
    blocks = np.array(blocks)
    size = blocks.shape[1]
    trie = CodeTrie(blocks)
    beginnings = {tuple(block[:n]) for block in blocks.tolist() for n in range(size)}
    # Down from the root: what each node's ancestors spell.
    spelt = [
        tuple(int(trie.tokens[a]) for a in trie.ancestors[node, 1 : depth + 1])
        for node, depth in enumerate(trie.depths.tolist())
    ]
    assert len(trie) == len(spelt) == len(beginnings)
    assert set(spelt) == beginnings
    longer = [(*spelt[node], int(token)) for node, token in zip(trie.edge_nodes, trie.edge_tokens)]
    assert sorted(longer) == sorted({tuple(block[:n]) for block in blocks.tolist() for n in range(1, size + 1)})
    for block, edges in zip(blocks.tolist(), trie.code_edges):
        assert [longer[edge] for edge in edges] == [tuple(block[: n + 1]) for n in range(size)]

    # The parts have together what the tree has, each with all that its nodes descend from.
    nodes, edges = [], []
    for part in trie.parts(most):
        own = [
            tuple(int(part.tokens[a]) for a in part.ancestors[node, 1 : depth + 1])
            for node, depth in enumerate(part.depths.tolist())
        ]
        assert len(own) - part.first <= most
        assert all(node < part.first for node in part.ancestors[: part.first].ravel())
        nodes += own[part.first :]
        edges += [(*own[node], int(token)) for node, token in zip(part.edge_nodes, part.edge_tokens)]
        assert all(node >= part.first for node in part.edge_nodes)
        assert len(edges) == part.edges.stop
    assert nodes == spelt
    assert edges == longer


# --- What is computed, and how often ----------------------------------------------------------------------------------


class AskedValues(TorchDispatchMode):
    """Counts where the host waits for a value of the device."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


def test_the_counter_of_asked_values_counts():
    with AskedValues() as asked:
        torch.ones(1).item()
        assert torch.ones(1) > 0
        torch.ones(2).nonzero()
    assert asked.number == 3


def test_decoding_never_waits_for_a_value(memory):
    blocks = torch.from_numpy(codes_of(np.random.default_rng(1), 4, 3)).expand(len(memory), -1, -1)
    trie = CodeTrie(blocks[0].numpy())
    with AskedValues() as asked:
        greedy_decode(memory, LENGTH)
        greedy_top_k(memory, LENGTH, 2)
        block_probabilities(memory, blocks)
        full_search(memory, trie)
    assert asked.number == 0


def flops_of(action):
    """FLOP of linear maps; attention itself is not counted on every device."""
    with FlopCounterMode(display=False) as counter:
        action()
    counts = counter.get_flop_counts()["Global"]
    return sum(flops for operation, flops in counts.items() if "mm" in str(operation))


def products(rows, units, vocabulary=VOCABULARY):
    """FLOP of so many maps from width to width, and of a map to the vocabulary, for so many positions."""
    return 2 * rows * WIDTH * (units * WIDTH + vocabulary)


# Maps of width x width for a position and layer: the two of the feed-forward part are 24 wide.
UNITS = 6 + 2 * 24 / WIDTH


def test_keys_and_values_are_computed_once(model, encoded):
    """A step costs what one position costs, wherever it is; the memory is projected before, in its two maps."""
    rows, places, _ = encoded.shape
    once = flops_of(lambda: DecoderMemory(model.decoder, encoded))
    assert once == 3 * 2 * 2 * rows * places * WIDTH * WIDTH
    memory = DecoderMemory(model.decoder, encoded)
    steps = LENGTH - 1
    assert flops_of(lambda: greedy_decode(memory, LENGTH)) == steps * products(rows, 3 * UNITS)


def test_each_beginning_of_codes_runs_once(memory):
    blocks = codes_of(np.random.default_rng(5), 60, 3, (5, 9))
    trie = CodeTrie(blocks)
    rows, nodes = len(memory), len(trie)
    assert nodes < 60, "codes share their beginnings"
    # Up to the first attention to the memory all texts share what is computed.
    shared = 2 * nodes * WIDTH * WIDTH * 4
    queries = 2 * nodes * WIDTH * WIDTH
    own = products(rows * nodes, 3 * UNITS - 5)
    assert flops_of(lambda: full_search(memory, trie)) == shared + queries + own


def test_a_beginning_is_that_of_the_label(model, encoded, memory):
    """The first token of a code comes after BOS, whatever the key."""
    first = plain.next_token(model, encoded, torch.full((len(encoded), 1), BOS_IDX))
    tokens = np.arange(VOCABULARY)[:, None]
    torch.testing.assert_close(full_search(memory, CodeTrie(tokens)), first, **CLOSE)
