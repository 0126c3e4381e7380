"""From a user's own table to files that can be trained on, and what is wrong with the table."""

from histocc.files.key import read_key, write_key
from histocc.preparation.pipeline import (
    check_arguments,
    check_codes,
    prepare,
    prepare_finetuning_data,
    setup_finetuning_datasets,
)
from histocc.preparation.prepared import check_overwrite, is_prepared, made_with, prepared_notes
from histocc.preparation.report import PreparationReport

__all__ = [
    "PreparationReport",
    "check_arguments",
    "check_codes",
    "check_overwrite",
    "is_prepared",
    "made_with",
    "prepare",
    "prepare_finetuning_data",
    "prepared_notes",
    "read_key",
    "setup_finetuning_datasets",
    "write_key",
]
