"""Full search: the probability of every code of a key."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from histocc.decoding.memory import DecoderMemory
from histocc.decoding.trie import CodeTrie, TriePart
from histocc.formatter import BOS_IDX
from histocc.layers.decoder import TransformerDecoder, attend_to_memory, feed_forward, join_target, project_target

# In bytes. A GPU wants many rows at a time; on a CPU a few thousand nodes are most of what can be gained, and stay in
# its cache.
_BUDGETS = {"cpu": 64 * 2**20}
_BUDGET = 2**30
_MOST_CELLS = {"cpu": 4500}


@torch.no_grad()
def full_search(memory: DecoderMemory, trie: CodeTrie, memory_budget: int | None = None) -> Tensor:
    """The probability of each code as the first block of the label.

    Each beginning that codes share runs once for each text, many at a time; what does not depend on the text, up to the
    first look at it, once for all.

    Parameters
    ----------
    memory
        The texts, B of them.
    trie
        The C codes.
    memory_budget
        Bytes for intermediate results, by default what suits the device. Less means smaller parts, never another
        answer.

    Returns
    -------
    Tensor
        Float32 [B, C], the products of the probabilities of the codes' tokens.
    """
    if memory_budget is None:
        memory_budget = _BUDGETS.get(memory.device.type, _BUDGET)
    cells = max(1, memory_budget // _bytes_per_cell(memory, trie))
    cells = min(cells, _MOST_CELLS.get(memory.device.type, cells))
    parts = [_PartOnDevice.of(part, memory) for part in trie.parts(max(1, min(cells, len(trie))))]
    rows = max(1, cells // len(trie))
    code_edges = torch.from_numpy(trie.code_edges).to(memory.device)
    found = []
    for start in range(0, len(memory), rows):
        some = memory.rows(slice(start, start + rows))
        edges = torch.cat([_edge_log_probabilities(some, part) for part in parts], dim=1)
        total = edges.index_select(1, code_edges[:, 0])
        for position in range(1, code_edges.size(1)):
            total += edges.index_select(1, code_edges[:, position])
        found.append(total.exp())
    return torch.cat(found)


class _PartOnDevice(NamedTuple):
    """A `TriePart` as tensors, with what all texts share."""

    hidden: Tensor  # after the first layer's self-attention, [1, n, hidden]
    first: int
    ancestors: Tensor
    bias: Tensor  # -inf where an ancestor does not count, [S, 1, n, 1]
    edge_nodes: Tensor
    edge_places: Tensor

    @classmethod
    def of(cls, part: TriePart, memory: DecoderMemory) -> _PartOnDevice:
        decoder, device = memory.decoder, memory.device
        tokens, depths, ancestors = (torch.from_numpy(a).to(device) for a in (part.tokens, part.depths, part.ancestors))
        visible = torch.arange(ancestors.size(1), device=device)[:, None] <= depths
        bias = torch.where(visible, 0.0, -torch.inf)[:, None, :, None]
        nodes = torch.from_numpy(part.edge_nodes - part.first).to(device)
        places = nodes * decoder.head.out_features + torch.from_numpy(part.edge_tokens).to(device)
        hidden = decoder.embed(torch.where(depths > 0, tokens, BOS_IDX)[None], depths)
        hidden = _self_attention(decoder, 0, hidden, ancestors, bias)
        return cls(hidden, part.first, ancestors, bias, nodes, places)


def _edge_log_probabilities(memory: DecoderMemory, part: _PartOnDevice) -> Tensor:
    """The logarithm of each edge's probability given the node at which it starts, float32 [B, edges of the part]."""
    decoder = memory.decoder
    hidden = part.hidden
    for i, (layer, attended_memory) in enumerate(zip(decoder.decoder.layers, memory.layers)):
        if i:
            hidden = _self_attention(decoder, i, hidden, part.ancestors, part.bias)
        hidden = feed_forward(layer, attend_to_memory(layer, hidden, *attended_memory))
    logits = decoder.head(hidden[:, part.first :]).float()
    normalisers = logits.logsumexp(-1)
    return logits.flatten(1).index_select(1, part.edge_places) - normalisers.index_select(1, part.edge_nodes)


def _self_attention(decoder: TransformerDecoder, i: int, hidden: Tensor, ancestors: Tensor, bias: Tensor) -> Tensor:
    """The first third of layer `i`, in which each node sees the nodes that it descends from, and itself."""
    layer = decoder.decoder.layers[i]
    heads = layer.self_attn.num_heads
    query, key, value = project_target(layer, hidden)
    query = (query / math.sqrt(query.size(-1) // heads)).unflatten(-1, (heads, -1))
    key, value = key.contiguous(), value.contiguous()  # rather than once for each depth
    by_depth = ancestors.unbind(1)
    # Depth comes first: a softmax over a short last dimension is slow.
    scores = torch.stack([(query * key.index_select(1, each).unflatten(-1, (heads, -1))).sum(-1) for each in by_depth])
    weights = (scores + bias).softmax(0).to(value.dtype)
    attended = torch.zeros_like(query, dtype=value.dtype)
    for weight, each in zip(weights, by_depth):
        attended.addcmul_(weight[..., None], value.index_select(1, each).unflatten(-1, (heads, -1)))
    return join_target(layer, hidden, attended.flatten(2))


def _bytes_per_cell(memory: DecoderMemory, trie: CodeTrie) -> int:
    """What one node of one text takes at the most crowded moment, roughly."""
    decoder = memory.decoder
    width, layer = decoder.head.in_features, decoder.decoder.layers[0]
    in_attention = 8 * width + 3 * layer.self_attn.num_heads * trie.code_edges.shape[1]
    in_feed_forward = 3 * width + 2 * layer.linear1.out_features
    at_the_end = width + 2 * decoder.head.out_features
    return 4 * max(in_attention, in_feed_forward, at_the_end)
