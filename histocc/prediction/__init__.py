"""Codes from a trained model: decoding, distinct texts in batches, and the original's wrapper."""
