"""Codes to tokens and back."""

from .constants import (
    BOS_IDX,
    EOS_IDX,
    MAP_HISCO_IDX,
    MAP_IDX_HISCO,
    MAP_IDX_OCC1950,
    MAP_OCC1950_IDX,
    PAD_IDX,
    SEP_IDX,
    UNK_IDX,
)
from .general import BlockyFormatter, construct_finetune_formatter, construct_general_purpose_formatter
from .hisco import BlockyHISCOFormatter, blocky5, hisco_blocky5
from .occ1950 import BlockyOCC1950Formatter, occ1950_blocky1, occ1950_blocky2

__all__ = [
    "BOS_IDX",
    "EOS_IDX",
    "MAP_HISCO_IDX",
    "MAP_IDX_HISCO",
    "MAP_IDX_OCC1950",
    "MAP_OCC1950_IDX",
    "PAD_IDX",
    "SEP_IDX",
    "UNK_IDX",
    "BlockyFormatter",
    "BlockyHISCOFormatter",
    "BlockyOCC1950Formatter",
    "blocky5",
    "construct_finetune_formatter",
    "construct_general_purpose_formatter",
    "hisco_blocky5",
    "occ1950_blocky1",
    "occ1950_blocky2",
]
