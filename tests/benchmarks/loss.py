"""How much faster the vectorised loss is than the loop over block pairs: `python -m tests.benchmarks.loss`.

Forward and backward of `BlockOrderInvariantLoss`, both implementations taking turns in one process; the fastest pass of
each counts, since other programs can only slow them down.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from histocc.loss import BlockOrderInvariantLoss
from tests.oracles.order_invariant_loop import loss_parts

PAD = 1
# Rows, blocks, block size, vocabulary.
SHAPES = [(512, 5, 5, 19), (128, 5, 8, 2087)]


def random_batch(batch: int, k: int, s: int, v: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [B, T-1, V] and target [B, T] with 1 to K codes a row, most rows having one."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(5, v, (batch, k, s), generator=generator)
    n_codes = torch.randint(1, k + 1, (batch,), generator=generator)
    n_codes[torch.rand(batch, generator=generator) < 0.7] = 1
    target[torch.arange(k) >= n_codes[:, None]] = PAD
    bos, eos = torch.full((batch, 1), 2), torch.full((batch, 1), 3)
    yhat = torch.randn(batch, k * s + 1, v, generator=generator)
    return yhat, torch.cat([bos, target.flatten(1), eos], dim=1)


def seconds(step: Callable[[], Tensor], yhat: Tensor, repeats: int) -> float:
    """The fastest of `repeats` forward and backward passes."""
    times = []
    for _ in range(repeats):
        yhat.grad = None
        start = time.perf_counter()
        step().backward()
        if yhat.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def main(argv: list[str] | None = None) -> list[float]:
    """Print one line per shape; return the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often the two take turns")
    parser.add_argument("--repeats", type=int, default=10, help="timings per turn")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)

    ratios = []
    print(f"{'B':>5} {'K':>3} {'S':>3} {'V':>5} {'loop ms':>9} {'vectorised ms':>14} {'ratio':>7}")
    for batch, k, s, v in SHAPES:
        yhat, target = (tensor.to(args.device) for tensor in random_batch(batch, k, s, v))
        yhat.requires_grad_()
        loss_fn = BlockOrderInvariantLoss(PAD, nb_blocks=k, block_size=s)
        steps = {
            "loop": lambda y=yhat, t=target, k=k, s=s: sum(loss_parts(y, t, PAD, k, s)),
            "vectorised": lambda y=yhat, t=target, f=loss_fn: f(y, t),
        }
        times = [[seconds(step, yhat, args.repeats) for step in steps.values()] for _ in range(args.rounds)]
        loop, vectorised = (1e3 * min(of_step) for of_step in zip(*times))
        ratios.append(loop / vectorised)
        print(f"{batch:5} {k:3} {s:3} {v:5} {loop:9.2f} {vectorised:14.2f} {ratios[-1]:7.1f}")
    return ratios


if __name__ == "__main__":
    main()
