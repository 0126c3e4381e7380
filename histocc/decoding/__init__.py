"""Codes from a decoder or a flat head: tensors in, tensors out, without texts, tables or wrappers."""
