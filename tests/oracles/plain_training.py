"""Training and evaluation of the mixer as one would write them down first: the yardstick for speed.

transformers' own encoder, torch's decoder with masks as they come, the loss looped over pairs of blocks, dense targets,
and the host reading figures off the device in every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from histocc.formatter import PAD_IDX
from histocc.model_assets import Seq2SeqMixerOccCANINE
from tests.oracles.order_invariant_loop import loss_parts


class PlainMixer(nn.Module):
    """The mixer around the parts of `model`, which was built with `fast_encoder=False`."""

    def __init__(self, model: Seq2SeqMixerOccCANINE) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, target: Tensor, mask: Tensor, padding_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        parts = self.model.decoder
        encoded = self.model.encoder(input_ids=input_ids, attention_mask=attention_mask)
        embedded = parts.token_emb.embedding(target.permute(1, 0)) * math.sqrt(encoded.pooler_output.shape[1])
        hidden = parts.decoder(
            parts.positional_encoding(embedded),
            encoded.last_hidden_state.permute(1, 0, 2),
            tgt_mask=mask,
            tgt_key_padding_mask=padding_mask,
        )
        logits = parts.head(hidden).permute(1, 0, 2)
        return logits, self.model.linear_decoder_drop(self.model.linear_decoder(encoded.pooler_output))


def masks(target: Tensor) -> tuple[Tensor, Tensor]:
    size = target.shape[1]
    causal = (torch.triu(torch.ones(size, size, device=target.device)) == 1).transpose(0, 1)
    causal = causal.float().masked_fill(causal == 0, float("-inf")).masked_fill(causal == 1, 0.0)
    return causal, (target == PAD_IDX).float()


def losses(out_seq2seq: Tensor, out_linear: Tensor, batch: dict[str, Any], formatter: Any) -> tuple[Tensor, ...]:
    order, padding = loss_parts(
        out_seq2seq.float(), batch["targets_seq2seq"], PAD_IDX, formatter.max_num_codes, formatter.block_size
    )
    linear = F.binary_cross_entropy_with_logits(out_linear.float(), batch["targets_linear"])
    return 0.5 * (order + padding) + 0.5 * linear, order + padding, linear


def forward(model: nn.Module, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor, dict[str, Any]]:
    batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    target = batch["targets_seq2seq"][:, :-1]
    return *model(batch["input_ids"], batch["attention_mask"], target, *masks(target)), batch


def train_plainly(
    model: nn.Module,
    loader: Iterable[dict[str, Any]],
    formatter: Any,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    device: torch.device,
    autocast: AbstractContextManager[Any] | None = None,
) -> list[float]:
    """One pass over `loader`; the loss of each step."""
    model.train()
    values = []
    for batch in loader:
        optimizer.zero_grad()
        with autocast or nullcontext():
            out_seq2seq, out_linear, moved = forward(model, batch, device)
        loss = losses(out_seq2seq, out_linear, moved, formatter)[0]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        values.append(loss.item())
    return values


@torch.no_grad()
def evaluate_plainly(
    model: nn.Module, loader: Iterable[dict[str, Any]], formatter: Any, device: torch.device
) -> dict[str, float]:
    """One pass over `loader`; means over its rows."""
    model.eval()
    k, s = formatter.max_num_codes, formatter.block_size
    sums = dict.fromkeys(("val_loss", "val_loss_seq2seq", "val_loss_linear", "seq_acc", "token_acc", "flat_acc"), 0.0)
    rows = 0
    for batch in loader:
        out_seq2seq, out_linear, moved = forward(model, batch, device)
        parts = losses(out_seq2seq, out_linear, moved, formatter)
        for name, value in zip(("val_loss", "val_loss_seq2seq", "val_loss_linear"), parts):
            sums[name] += value.item() * len(out_linear)
        target = moved["targets_seq2seq"][:, 1 : 1 + k * s]
        predicted = out_seq2seq[:, : k * s].argmax(dim=2)
        hits = []
        for i in range(k):
            equal = [
                (target[:, i * s : i * s + s] == predicted[:, j * s : j * s + s]).float().mean(dim=1) for j in range(k)
            ]
            hits.append(torch.stack(equal).max(dim=0).values)
        hit = torch.stack(hits)
        sums["seq_acc"] += 100 * (hit == 1).all(dim=0).float().sum().item()
        sums["token_acc"] += 100 * hit.mean(dim=0).sum().item()
        flat = ((out_linear.sigmoid() > 0.5) == moved["targets_linear"].bool()).all(dim=1)
        sums["flat_acc"] += flat.float().sum().item()
        rows += len(out_linear)
    return {name: value / rows for name, value in sums.items()}
