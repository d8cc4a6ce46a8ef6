"""Cut prompts into batches for one pass each, by rows and by tokens with their padding: for generation and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["PREFILL_TOKENS", "length_batches"]

# Tokens, padding included, that go through one pass: bounds its memory, costs no speed beyond some hundreds.
PREFILL_TOKENS = 2048


def length_batches(members: Sequence[int], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Cut members, shortest first, into batches of at most `batch_size` rows and `PREFILL_TOKENS` padded tokens.

    Args:
        members: Places in `lengths`, in ascending order of length.
        lengths: Tokens of each prompt.
        batch_size: Most rows of a batch.

    Yields:
        Members of one batch; a prompt longer than the limit is one by itself.
    """
    batch: list[int] = []
    for index in members:
        if batch and (len(batch) == batch_size or lengths[index] * (len(batch) + 1) > PREFILL_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
