"""From a user's own table to files that can be trained on, and what is wrong with the table."""

from .key import read_key, write_key
from .pipeline import is_prepared, prepare, prepare_finetuning_data, prepared_notes, setup_finetuning_datasets
from .report import PreparationReport

__all__ = [
    "PreparationReport",
    "is_prepared",
    "prepare",
    "prepare_finetuning_data",
    "prepared_notes",
    "read_key",
    "setup_finetuning_datasets",
    "write_key",
]
