"""Packing with a shared prefix: what many rows have in common is computed once. Between chat (ids) and the model.

Rows about one database open with the same schema; in ordinary batches that schema is paid for in each row. Here a
sequence is one prefix (segment 0) with several branches (segments 1..k). A token sees the prefix and its own branch
only, and a branch's positions go on from the prefix, so that every branch gets exactly the logits that it would get
alone (the tree attention of Cai et al. 2024, "Medusa", turned to training). The same form scores the choices of a
multiple-choice question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from components.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from components.data.chat import Encoded

__all__ = ["Layout", "PackedSequence", "collate", "common_prefix", "pack_branches", "pack_rows", "visible"]

# How a batch says which tokens see which.
Layout = Literal["mask", "rows", "segments"]

IGNORED = -100


@dataclass(frozen=True)
class PackedSequence:
    """One prefix and its branches, flattened. All lists have length T.

    Attributes:
        input_ids: Token ids.
        position_ids: Place within the row that the token belongs to.
        segments: 0 for the prefix, k for branch k.
        labels: The token to predict at each place (already shifted), -100 where there is none.
        weights: Loss weight of that prediction.
        rows: Number of branches.
    """

    input_ids: list[int]
    position_ids: list[int]
    segments: list[int]
    labels: list[int]
    weights: list[float]
    rows: int

    def __len__(self) -> int:
        return len(self.input_ids)


def pack_branches(
    prefix_ids: Sequence[int], branches: Sequence[tuple[Sequence[int], Sequence[float]]]
) -> PackedSequence:
    """Flatten a prefix and its branches.

    Each branch begins with a copy of the prefix's last token, so that the branch's first own token is predicted from
    a place of its own: the prefix's last place could only have one label.

    Args:
        prefix_ids: Token ids that every branch shares, at least one.
        branches: For each branch its token ids behind the prefix and the loss weight of predicting each.

    Returns:
        The flattened sequence; the prefix itself has no labels.

    Raises:
        InputError: No prefix, no branch, or a branch whose ids and weights differ in length.
    """
    if not prefix_ids or not branches:
        raise InputError("a packed sequence needs a prefix of at least one token and at least one branch")
    shared = list(prefix_ids[:-1])
    input_ids, labels, weights = list(shared), [IGNORED] * len(shared), [0.0] * len(shared)
    position_ids, segments = list(range(len(shared))), [0] * len(shared)
    for number, (ids, branch_weights) in enumerate(branches, start=1):
        if not ids or len(ids) != len(branch_weights):
            raise InputError(f"branch {number} has {len(ids)} tokens and {len(branch_weights)} weights")
        own = [prefix_ids[-1], *ids]
        input_ids += own
        position_ids += range(len(shared), len(shared) + len(own))
        segments += [number] * len(own)
        labels += [token if weight > 0 else IGNORED for token, weight in zip(ids, branch_weights, strict=True)]
        labels.append(IGNORED)
        weights += [*map(float, branch_weights), 0.0]
    return PackedSequence(input_ids, position_ids, segments, labels, weights, len(branches))


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return the number of leading tokens that all sequences share."""
    # the first and the last in lexical order differ at the first place where any two of them do
    shortest, longest = min(map(list, sequences)), max(map(list, sequences))
    for place, (one, other) in enumerate(zip(shortest, longest, strict=False)):
        if one != other:
            return place
    return min(len(shortest), len(longest))


def pack_rows(rows: Sequence[Encoded]) -> PackedSequence:
    """Pack encoded rows behind their longest common prefix, up to the first token that carries weight.

    Args:
        rows: Encoded conversations. With one row, or rows that share nothing but the first token, packing costs
            one token a row and saves nothing; it is right all the same.

    Returns:
        One packed sequence with a branch for each row, in the order given.

    Raises:
        InputError: The rows don't even share their first token.
    """
    shared = common_prefix([row.input_ids for row in rows])
    # the prefix has no labels, so it ends before the first weighted token and before the shortest row does
    for row in rows:
        weighted = next((place for place, weight in enumerate(row.weights) if weight > 0), len(row.weights))
        shared = min(shared, weighted, len(row.input_ids) - 1)
    if shared == 0:
        raise InputError("rows that share no leading token can't be packed together")
    return pack_branches(rows[0].input_ids[:shared], [(row.input_ids[shared:], row.weights[shared:]) for row in rows])


def collate(sequences: Sequence[PackedSequence], pad_id: int, layout: Layout = "mask") -> dict[str, Tensor]:
    """Pad packed sequences into one batch.

    Args:
        sequences: B packed sequences; T is the longest.
        pad_id: Token id for the padding; its places carry no label, and no token of a row sees them.
        layout: "mask": with a mask; "rows": the same, but where every sequence is one row none, since that each token
            sees those before it is all there is to say; "segments": with the segments that a mask is made of, those of
            a row alone all 1.

    Returns:
        `input_ids`, `position_ids`, `labels` [B, T] int64, `weights` [B, T] float32, and `attention_mask`
        [B, 1, T, T] bool, True where row i may see column j (transformers takes a 4-d mask as it is), or `segments`
        [B, T] int64, -1 for padding, or neither.
    """
    import torch

    length = max(len(sequence) for sequence in sequences)

    def padded(name: str, fill: float) -> list[list[float]]:
        return [list(getattr(s, name)) + [fill] * (length - len(s)) for s in sequences]

    batch = {
        "input_ids": torch.tensor(padded("input_ids", pad_id), dtype=torch.int64),
        "position_ids": torch.tensor(padded("position_ids", 0), dtype=torch.int64),
        "labels": torch.tensor(padded("labels", IGNORED), dtype=torch.int64),
        "weights": torch.tensor(padded("weights", 0.0), dtype=torch.float32),
    }
    alone = torch.tensor([sequence.rows == 1 for sequence in sequences])
    if layout == "rows" and alone.all():
        # padding sees the row before it, which harms nobody; its positions go on, or they would tell of a second row
        batch["position_ids"] = torch.arange(length).expand(len(sequences), -1).contiguous()
        return batch
    segments = torch.tensor(padded("segments", -1), dtype=torch.int64)
    if layout == "segments":
        batch["segments"] = torch.where(alone[:, None] & (segments == 0), 1, segments)
    else:
        batch["attention_mask"] = visible(segments)[:, None]
    return batch


def visible(segments: Tensor) -> Tensor:
    """Return which tokens see which: what came before in the own branch, and the prefix.

    Args:
        segments: [B, T]: 0 for the prefix, k for branch k, -1 for padding.

    Returns:
        [B, T, T] bool, True where token i may see token j.
    """
    import torch

    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    of_prefix = segments[:, None, :] == 0
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    # padding sees itself: a row of the mask with nothing visible would turn into NaN in softmax
    return (same | (of_prefix & (segments[:, :, None] >= 0))) & before
