"""The data path one row at a time, as one would write it down first: the yardstick for the batched one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from histocc.attacker import AttackerClass


class PlainRows(Dataset):
    """A DataFrame row through formatter, attacker and transformers' tokenizer, for each item by itself."""

    def __init__(
        self,
        frame: pd.DataFrame,
        formatter: Any,
        max_input_len: int,
        num_classes_flat: int,
        training: bool = True,
        alt_prob: float = 0.3,
        n_trans: int = 3,
        unk_lang_prob: float = 0.25,
        map_code_label: dict[str, int] | None = None,
    ) -> None:
        from transformers import CanineTokenizer

        self.frame = frame
        self.formatter = formatter
        self.tokenizer = CanineTokenizer()
        self.max_input_len = max_input_len
        self.num_classes_flat = num_classes_flat
        self.training = training
        self.unk_lang_prob = unk_lang_prob
        self.map_code_label = map_code_label
        self.attacker = AttackerClass(alt_prob, n_trans, df=frame)

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self.frame.iloc[i]
        text, language = row["occ1"], row["lang"]
        if self.training:
            text = self.attacker.attack(text).strip("'[]")
            if random.random() < self.unk_lang_prob:
                language = "unk"
        text = f"{language}[SEP]{text}"
        encoded = self.tokenizer(
            text, padding="max_length", max_length=self.max_input_len, truncation=True, return_attention_mask=True
        )
        linear = np.zeros(self.num_classes_flat, dtype=np.float32)
        for column in self.formatter.row_columns:
            if pd.isna(row[column]):
                break
            code = row[column]
            linear[int(float(code)) if self.map_code_label is None else self.map_code_label[str(code)]] = 1
        return {
            "occ1": text,
            "input_ids": torch.tensor(encoded["input_ids"]),
            "attention_mask": torch.tensor(encoded["attention_mask"]),
            "targets_seq2seq": torch.tensor(self.formatter.transform_label(row), dtype=torch.long),
            "targets_linear": torch.from_numpy(linear),
        }
