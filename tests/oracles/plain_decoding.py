"""Prediction as one would write it down first: the yardstick for numbers and for speed.

transformers' own tokenizer, one text at a time, and encoder; torch's own decoder, run again on the growing prefix; of
the tree of codes one node after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from histocc.formatter import BOS_IDX
from histocc.model_assets import CANINEOccupationClassifier, Seq2SeqMixerOccCANINE, Seq2SeqOccCANINE


@cache
def tokenizer() -> Any:
    """transformers' own, which takes a second to make."""
    from transformers import CanineTokenizer

    return CanineTokenizer()


def tokenize(inputs: Sequence[str], max_len: int) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, max_len] of `lang[SEP]text`."""
    encoded = [
        tokenizer()(text, padding="max_length", max_length=max_len, truncation=True, return_attention_mask=True)
        for text in inputs
    ]
    return tuple(torch.tensor([each[name] for each in encoded]) for name in ("input_ids", "attention_mask"))


@torch.no_grad()
def encode(model: Any, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Memory and pooled encoding."""
    encoder = model.basemodel if isinstance(model, CANINEOccupationClassifier) else model.encoder
    encoded = encoder(input_ids=input_ids, attention_mask=attention_mask)
    return encoded.last_hidden_state, encoded.pooler_output


@torch.no_grad()
def next_token(model: Seq2SeqOccCANINE, memory: Tensor, prefix: Tensor) -> Tensor:
    """Probabilities of the token after the prefix [B, n], [B, V]."""
    parts = model.decoder
    embedded = parts.token_emb.embedding(prefix.permute(1, 0)) * math.sqrt(memory.shape[2])
    causal = torch.triu(torch.full((prefix.shape[1], prefix.shape[1]), -torch.inf), diagonal=1)
    hidden = parts.decoder(parts.positional_encoding(embedded), memory.permute(1, 0, 2), tgt_mask=causal)
    return parts.head(hidden[-1]).softmax(-1)


def greedy(
    model: Seq2SeqOccCANINE,
    memory: Tensor,
    length: int,
    forbidden: Sequence[set[tuple[int, int]]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Tokens and their probabilities [B, length]; in row b no (position, token) of `forbidden[b]` is chosen."""
    tokens = torch.full((len(memory), 1), BOS_IDX)
    probabilities = torch.ones(len(memory), 1)
    for position in range(1, length):
        predicted = next_token(model, memory, tokens)
        eligible = predicted.clone()
        for row, pairs in enumerate(forbidden or ()):
            for where, token in pairs:
                if where == position:
                    eligible[row, token] = -1
        chosen = eligible.argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, chosen], dim=1)
        probabilities = torch.cat([probabilities, predicted.gather(1, chosen)], dim=1)
    return tokens, probabilities


def full_search(model: Seq2SeqOccCANINE, memory: Tensor, blocks: np.ndarray) -> np.ndarray:
    """The probability of each code, float32 [B, C]: down the tree, with a call of the decoder at each node."""
    tree: dict = {}
    for code, block in enumerate(blocks.tolist()):
        node = tree
        for token in block:
            node = node.setdefault(token, {})
        node.setdefault("codes", []).append(code)
    found = np.zeros((len(memory), len(blocks)), dtype=np.float32)

    def walk(node: dict, prefix: list[int], probability: np.ndarray) -> None:
        for code in node.get("codes", []):
            found[:, code] = probability
        if len(prefix) > blocks.shape[1]:
            return
        predicted = next_token(model, memory, torch.tensor([prefix]).expand(len(memory), -1)).numpy()
        for token, child in node.items():
            walk(child, [*prefix, token], probability * predicted[:, token])

    walk(tree, [BOS_IDX], np.ones(len(memory), dtype=np.float32))
    return found


@torch.no_grad()
def flat(
    model: CANINEOccupationClassifier | Seq2SeqMixerOccCANINE, input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """Logits [B, C]."""
    _, pooled = encode(model, input_ids, attention_mask)
    return model.out(pooled) if isinstance(model, CANINEOccupationClassifier) else model.linear_decoder(pooled)
