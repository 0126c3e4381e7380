import inspect

import torch

from histocc.layers import TransformerDecoder
from histocc.layers.masking import create_mask


def test_defaults_of_the_decoder():
    parameters = inspect.signature(TransformerDecoder).parameters
    assert (parameters["dim_feedforward"].default, parameters["dropout"].default) == (512, 0.1)
    decoder = TransformerDecoder(1, 16, 2, 7)
    assert decoder.decoder.layers[0].linear1.out_features == 512
    assert decoder.positional_encoding.dropout.p == decoder.decoder.layers[0].dropout1.p == 0.1


def test_the_head_follows_on_features_that_a_subclass_may_change():
    class Tripled(TransformerDecoder):
        def forward_features(self, *inputs):
            return 3 * super().forward_features(*inputs)

    torch.manual_seed(0)
    decoder = Tripled(1, 16, 2, vocab_size=7, dim_feedforward=16).eval()
    memory, target = torch.randn(2, 4, 16), torch.randint(0, 7, (2, 5))
    masks = create_mask(target, 1, "cpu")
    plain = TransformerDecoder.forward_features(decoder, memory, target, *masks)
    assert plain.shape == (2, 5, 16)
    torch.testing.assert_close(decoder(memory, target, *masks), decoder.head(3 * plain))
