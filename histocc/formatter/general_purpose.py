"""The general-purpose formatter, under the original's name."""

from histocc.formatter.general import (
    BlockyFormatter,
    construct_finetune_formatter,
    construct_general_purpose_formatter,
)

__all__ = ["BlockyFormatter", "construct_finetune_formatter", "construct_general_purpose_formatter"]
