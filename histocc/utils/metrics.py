"""Accuracies and the running mean, under the original's name."""

from histocc.metrics.accuracies import Averager, order_invariant_accuracy, seq2seq_sequence_accuracy

__all__ = ["Averager", "order_invariant_accuracy", "seq2seq_sequence_accuracy"]
