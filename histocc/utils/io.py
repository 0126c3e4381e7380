"""States of runs and data for fine-tuning, under the original's name."""

from histocc.preparation import prepare_finetuning_data, setup_finetuning_datasets
from histocc.runs.states import load_states

__all__ = ["load_states", "prepare_finetuning_data", "setup_finetuning_datasets"]
