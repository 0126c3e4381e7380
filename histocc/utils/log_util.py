"""Figures on file and at Weights & Biases, under the original's name."""

from histocc.training.tracking import update_summary, wandb_init

__all__ = ["update_summary", "wandb_init"]
