"""A decoder alone trains as the mixer does with a weight of 1 for the decoder's loss."""

import torch

from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.model_assets import Seq2SeqMixerOccCANINE, Seq2SeqOccCANINE
from histocc.utils import create_mask


def test_the_gradients_of_a_decoder_alone_are_those_of_a_mixer_without_a_flat_part(tiny_canine_config):
    torch.manual_seed(0)
    mixer = Seq2SeqMixerOccCANINE("", [18] * 27, 5, encoder=tiny_canine_config)
    alone = Seq2SeqOccCANINE("", [18] * 27, encoder=tiny_canine_config)
    alone.load_state_dict({k: v for k, v in mixer.state_dict().items() if not k.startswith("linear_decoder")})
    ids = torch.randint(97, 123, (4, 16))
    mask = torch.ones_like(ids)
    target = torch.ones(4, 27, dtype=torch.int64)
    target[:, 0], target[:, 1:6], target[:, -1] = 2, torch.randint(8, 18, (4, 5)), 3
    inputs = (ids, mask, target[:, :-1], *create_mask(target[:, :-1], 1, "cpu"))
    loss = BlockOrderInvariantLoss(1)
    loss(alone(*inputs), target).backward()
    out_seq2seq, out_linear = mixer(*inputs)
    LossMixer(loss, torch.nn.BCEWithLogitsLoss(), seq2seq_weight=1.0)(
        out_seq2seq=out_seq2seq, out_linear=out_linear, target_seq2seq=target, target_linear=torch.zeros(4, 5)
    ).backward()
    wanted = dict(alone.named_parameters())
    for name, parameter in mixer.named_parameters():
        if name.startswith("linear_decoder"):
            assert not parameter.grad.any(), name
        elif wanted[name].grad is not None:
            torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=0, atol=1e-6, msg=name)
        else:
            # The pooler has a part in the flat head alone.
            assert not parameter.grad.any(), name
