import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.dataloader.encoding import LanguagePrefixes, codepoints_of, encode_texts, text_of, texts_of

# Surrogates do not occur in UTF-8; white space in front of U+E003 is dropped by some versions of transformers.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\ue003")


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import CanineTokenizer

    return CanineTokenizer()


def encode(texts, languages, max_len):
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    prefixes = LanguagePrefixes(languages)
    return encode_texts(codepoints_of("".join(texts)), lengths, np.arange(len(texts)), prefixes, max_len)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(CHARACTERS, max_size=6), st.text(CHARACTERS, max_size=40)), min_size=1, max_size=5),
    st.integers(3, 40),  # transformers 4 cannot cut a text to nothing
)
def test_ids_are_those_of_the_tokenizer(tokenizer, pairs, max_len):
    languages, texts = zip(*pairs)
    ids, mask = encode(texts, languages, max_len)
    expected = tokenizer(
        [f"{language}[SEP]{text}" for language, text in pairs],
        padding="max_length",
        max_length=max_len,
        truncation=True,
        return_attention_mask=True,
    )
    assert ids.tolist() == expected["input_ids"]
    assert mask.tolist() == expected["attention_mask"]
    assert ids.dtype == mask.dtype == np.int64


def test_ids_are_those_of_the_tokenizer_for_500_characters(tokenizer):
    text = "å" * 500
    ids, mask = encode([text], ["da"], 128)
    assert ids[0].tolist() == tokenizer("da[SEP]" + text, max_length=128, truncation=True)["input_ids"]
    assert mask.sum() == 128
    assert ids[0, -1] == 0xE001


def test_characters_with_a_meaning_to_canine_keep_their_code_point():
    ids, mask = encode(["a\0 \ue003\ue000b"], ["x"], 16)
    assert ids[0, 7:13].tolist() == [ord("a"), 0, ord(" "), 0xE003, 0xE000, ord("b")]
    assert mask[0].tolist() == [1] * 14 + [0] * 2


@given(st.lists(st.text(CHARACTERS)))
def test_code_points_and_back(texts):
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codepoints = codepoints_of("".join(texts))
    assert texts_of(codepoints, lengths) == texts
    assert text_of(codepoints) == "".join(texts)
