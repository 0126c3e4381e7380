"""Codes to tokens and back."""

from histocc.formatter.constants import (
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
from histocc.formatter.general import BlockyFormatter, construct_finetune_formatter, construct_general_purpose_formatter
from histocc.formatter.hisco import BlockyHISCOFormatter, blocky5, hisco_blocky5
from histocc.formatter.isco68 import BlockyISCO68Formatter, isco68_blocky2
from histocc.formatter.occ1950 import BlockyOCC1950Formatter, occ1950_blocky1, occ1950_blocky2
from histocc.formatter.protocol import Formatter
from histocc.formatter.systems import CodingSystem, coding_system, general_system

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
    "BlockyISCO68Formatter",
    "BlockyOCC1950Formatter",
    "CodingSystem",
    "Formatter",
    "blocky5",
    "coding_system",
    "construct_finetune_formatter",
    "construct_general_purpose_formatter",
    "general_system",
    "hisco_blocky5",
    "isco68_blocky2",
    "occ1950_blocky1",
    "occ1950_blocky2",
]
