"""Choose the next token from one row of logits: greedy, or by temperature and nucleus (Holtzman et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["make_generator", "sample"]


def make_generator(seed: int | None) -> Generator:
    """Return a random stream for one request, seeded, or from the operating system when the seed is None."""
    import torch

    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        # torch takes 64 bits, a client may send any integer
        generator.manual_seed(seed % 2**63)
    return generator


def sample(logits: Tensor, temperature: float, top_p: float, generator: Generator) -> int:
    """Draw one token.

    Args:
        logits: One row [V], finite.
        temperature: Above 0.
        top_p: In (0, 1]; the likeliest token always stays.
        generator: The request's own stream, on the CPU.

    Returns:
        The token's id.
    """
    import torch

    row = logits.detach().to("cpu", torch.float64)
    # the largest logit is subtracted first, so that a tiny temperature can't overflow
    probabilities = torch.softmax((row - row.max()) / temperature, dim=-1)
    if top_p < 1.0:
        ordered, order = torch.sort(probabilities, descending=True)
        before = torch.cumsum(ordered, dim=-1) - ordered
        ordered[before >= top_p] = 0.0
        drawn = torch.multinomial(ordered, 1, generator=generator)
        return int(order[drawn].item())
    return int(torch.multinomial(probabilities, 1, generator=generator).item())
