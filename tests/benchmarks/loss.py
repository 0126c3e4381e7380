"""How much faster the vectorised loss is than the loop over block pairs: `python -m tests.benchmarks.loss`.

Forward and backward of `BlockOrderInvariantLoss`, both implementations alternating in one process.
"""

from __future__ import annotations

import argparse
import statistics
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
    return yhat.requires_grad_(), torch.cat([bos, target.flatten(1), eos], dim=1)


def timed(step: Callable[[], Tensor], yhat: Tensor) -> float:
    """Seconds that one forward and backward takes."""
    yhat.grad = None
    start = time.perf_counter()
    step().backward()
    if yhat.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> list[float]:
    """Print one line per shape; return the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="timings per implementation; the median counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)

    ratios = []
    print(f"{'B':>5} {'K':>3} {'S':>3} {'V':>5} {'loop ms':>9} {'vectorised ms':>14} {'ratio':>7}")
    for batch, k, s, v in SHAPES:
        yhat, target = random_batch(batch, k, s, v)
        yhat, target = yhat.detach().to(args.device).requires_grad_(), target.to(args.device)
        loss_fn = BlockOrderInvariantLoss(PAD, nb_blocks=k, block_size=s)
        steps = {
            "loop": lambda y=yhat, t=target, k=k, s=s: sum(loss_parts(y, t, PAD, k, s)),
            "vectorised": lambda y=yhat, t=target, f=loss_fn: f(y, t),
        }
        for step in steps.values():
            timed(step, yhat)
        # Alternating, so that a busy machine slows both down alike.
        times = [{name: timed(step, yhat) for name, step in steps.items()} for _ in range(args.repeats)]
        loop, vectorised = (1e3 * statistics.median(t[name] for t in times) for name in steps)
        ratios.append(loop / vectorised)
        print(f"{batch:5} {k:3} {s:3} {v:5} {loop:9.2f} {vectorised:14.2f} {ratios[-1]:7.1f}")
    return ratios


if __name__ == "__main__":
    main()
