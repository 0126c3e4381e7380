import numpy as np
import pytest

from histocc.dataloader import seen
from histocc.dataloader.rows import TextColumn
from histocc.dataloader.seen import seen_texts

TEXTS = ["farmer", "", "a", "a\0", "\0", "husmand og fisker", "fisker og husmand", "ærø", "farmer ", "Farmer", "amd"]


@pytest.mark.parametrize("chunk", [2, 2**15])
def test_texts_are_seen_where_a_set_has_them(chunk, monkeypatch):
    monkeypatch.setattr(seen, "_CHUNK_ROWS", chunk)
    rng = np.random.default_rng(chunk)
    for _ in range(20):
        wanted, among = (rng.choice(TEXTS, size=rng.integers(0, 9)).tolist() for _ in "wa")
        columns = TextColumn.from_strings(wanted), TextColumn.from_strings(among)
        assert seen_texts(*columns).tolist() == [text in set(among) for text in wanted]
        rows = np.flatnonzero(rng.random(len(among)) < 0.5)
        some = {among[row] for row in rows}
        assert seen_texts(*columns, rows).tolist() == [text in some for text in wanted]
