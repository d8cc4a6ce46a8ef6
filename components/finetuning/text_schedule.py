"""The order of a run on raw text: documents one after the other in full sequences, each of which sees itself alone.

Every token carries the loss. A document that doesn't end with its sequence goes on in the next one, from its last
token; attention and positions begin anew with each document (the document mask of Llama 3, arXiv:2407.21783, section
3.2), so that nothing is learned across a boundary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from components.data.packing import PackedSequence
from components.errors import InputError
from components.finetuning.schedule import Schedule, lay_out

__all__ = ["build_text_schedule", "pack_texts"]


def pack_texts(documents: Sequence[Sequence[int]], tokens: int) -> list[tuple[PackedSequence, list[int]]]:
    """Fill sequences with documents.

    Args:
        documents: Token ids as `encode_text` gives them: the first one is predicted from nothing.
        tokens: Length of a sequence, at least 1; the last one may be shorter.

    Returns:
        Each sequence with the numbers of the documents in it. Every token but a document's first is predicted once.
    """
    found: list[tuple[PackedSequence, list[int]]] = []
    pieces: list[tuple[int, Sequence[int]]] = []
    free = tokens
    for number, ids in enumerate(documents):
        start = 0
        while start < len(ids) - 1:
            # so many predictions, from the token before them
            count = min(free, len(ids) - 1 - start)
            pieces.append((number, ids[start : start + count + 1]))
            start, free = start + count, free - count
            if free == 0:
                found.append(_sequence(pieces))
                pieces, free = [], tokens
    if pieces:
        found.append(_sequence(pieces))
    return found


def _sequence(pieces: Sequence[tuple[int, Sequence[int]]]) -> tuple[PackedSequence, list[int]]:
    input_ids = [token for _, ids in pieces for token in ids[:-1]]
    packed = PackedSequence(
        input_ids=input_ids,
        position_ids=[place for _, ids in pieces for place in range(len(ids) - 1)],
        segments=[segment for segment, (_, ids) in enumerate(pieces, start=1) for _ in ids[1:]],
        labels=[token for _, ids in pieces for token in ids[1:]],
        weights=[1.0] * len(input_ids),
        rows=len(pieces),
    )
    return packed, [number for number, _ in pieces]


def build_text_schedule(
    documents: Sequence[Sequence[int]],
    lines: Sequence[int],
    *,
    epochs: float,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    max_tokens: int,
    seed: int,
) -> Schedule:
    """Lay out every step of a run on raw text.

    Args:
        documents: Token ids as `encode_text` gives them.
        lines: For each document its line or file number, to name it in an error.
        epochs: Passes over the documents, in another order each; a part of one takes that part of its sequences.
        micro_batch_size: Sequences in one forward pass.
        gradient_accumulation_steps: Micro-batches behind one optimizer step.
        max_tokens: Tokens of a sequence.
        seed: Seed of the order.

    Returns:
        The schedule.

    Raises:
        InputError: No documents.
    """
    if not documents:
        raise InputError("there are no documents", next_step="check data.text")
    rng = random.Random(seed)
    sequences: list[tuple[PackedSequence, list[int]]] = []
    remaining = epochs
    while remaining > 0:
        order = list(range(len(documents)))
        rng.shuffle(order)
        epoch = [
            (packed, [lines[order[number]] for number in numbers])
            for packed, numbers in pack_texts([documents[number] for number in order], max_tokens)
        ]
        sequences += epoch[: max(1, round(len(epoch) * min(1.0, remaining)))]
        remaining -= 1
    return lay_out(sequences, micro_batch_size, gradient_accumulation_steps)
