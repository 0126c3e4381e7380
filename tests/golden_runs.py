"""The original's training runs: weights, batches and everything that was set."""

import json

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from histocc.formatter import PAD_IDX, construct_general_purpose_formatter, hisco_blocky5
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.model_assets import Seq2SeqMixerOccCANINE
from histocc.training.schedule import linear_schedule, warmup_steps


class Run:
    """One golden run: model, loss, optimizer, schedule and batches, as the original had them."""

    def __init__(self, folder, name, config):
        self.expected = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}_batches.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key].astype(np.int64)) for key in arrays}
        self.final = load_file(folder / f"{name}_final.safetensors")
        self.model = Seq2SeqMixerOccCANINE(
            "Multilingual_CANINE",
            num_classes=self.expected["num_classes"],
            num_classes_flat=self.expected["num_classes_flat"],
            decoder_dim_feedforward=self.expected["decoder_dim_feedforward"],
            encoder=config,
        )
        self.model.load_state_dict(load_file(folder / f"{name}_init.safetensors"))
        self.loss_fn = LossMixer(
            BlockOrderInvariantLoss(
                PAD_IDX, nb_blocks=self.expected["max_num_codes"], block_size=self.expected["block_size"]
            ),
            nn.BCEWithLogitsLoss(),
            seq2seq_weight=self.expected["seq2seq_weight"],
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.expected["learning_rate"], fused=True)
        self.total_steps = self.expected["total_steps"]
        self.scheduler = linear_schedule(
            self.optimizer, warmup_steps(self.total_steps, self.expected["warmup_pct"]), self.total_steps
        )

    @property
    def formatter(self):
        if self.expected["num_classes"][0] == 18:
            return hisco_blocky5()
        columns = [f"pst_{i}" for i in range(self.expected["max_num_codes"])]
        return construct_general_purpose_formatter(self.expected["block_size"], columns, use_within_block_sep=True)

    def batches(self, part, sparse=False):
        size = self.expected["batch_size"]
        arrays = {k.removeprefix(f"{part}_"): v for k, v in self.arrays.items() if k.startswith(part)}
        arrays["targets_linear"] = arrays["targets_linear"].float()
        batches = [
            {k: v[start : start + size] for k, v in arrays.items()}
            for start in range(0, len(arrays["input_ids"]), size)
        ]
        if sparse:
            for batch in batches:
                dense = batch.pop("targets_linear")
                k = int(dense.sum(1).max())
                on, where = dense.topk(k, dim=1)
                batch["targets_classes"] = where.where(on > 0, -1)
        return batches

    def arguments(self):
        return self.model, self.loss_fn, self.optimizer, self.scheduler


def without_key_bias(name, tensor):
    """None or the part without key biases: their true gradient is zero, so that Adam amplifies rounding."""
    if name.endswith(".key.bias"):
        return None
    if name.endswith("in_proj_bias"):
        query, _, value = tensor.chunk(3)
        return torch.cat([query, value])
    return tensor
