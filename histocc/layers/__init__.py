"""The parts that the models are made of."""

from histocc.layers.decoder import TransformerDecoder

__all__ = ["TransformerDecoder"]
