from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.data.packing import PackedSequence, collate, pack_branches, visible
from components.errors import InputError
from components.finetuning.loss import forward_loss
from components.finetuning.text_schedule import pack_texts
from components.models.load import load_model
from components.models.packed_attention import block_mask, document_bounds, use_attention
from components.models.tiny import make_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base"))


def branches(lengths: list[int], prefix: int, seed: int) -> PackedSequence:
    drawn = torch.Generator().manual_seed(seed)
    ids = lambda count: torch.randint(3, 400, (count,), generator=drawn).tolist()  # noqa: E731
    return pack_branches(ids(prefix), [(ids(length), [1.0] * length) for length in lengths])


def loss_and_gradients(
    folder: Path, sequences: list[PackedSequence], attention: str | None, layout: Any
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model = load_model(folder).train()
    if attention is not None:
        assert use_attention(model, attention, "cpu")
    batch = collate(sequences, 0, layout)
    loss = forward_loss(model, batch, float(batch["weights"].sum()))
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def assert_same(
    found: tuple[torch.Tensor, list[torch.Tensor]], expected: tuple[torch.Tensor, list[torch.Tensor]]
) -> None:
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=0)
    for own, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_block_mask_is_the_mask_and_leaves_out_the_blocks_that_it_hides(seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 300, (3, 4), generator=drawn).tolist()
    sequences = [branches(own, 1 + 130 * (number + seed % 2), number) for number, own in enumerate(lengths)]
    segments = collate(sequences, 0, "segments")["segments"]
    expected = visible(segments)
    found = block_mask(segments)

    rows, tokens = segments.shape
    place = torch.arange(tokens)
    for row in range(rows):
        seen = found.mask_mod(torch.tensor(row), torch.tensor(0), place[:, None], place[None, :])
        assert torch.equal(seen, expected[row])
    padded = torch.nn.functional.pad(expected, (0, -tokens % 128, 0, -tokens % 128))
    tiles = padded.unflatten(1, (-1, 128)).unflatten(3, (-1, 128)).transpose(2, 3)
    some, whole = tiles.any(dim=(3, 4)), tiles.all(dim=(3, 4))
    listed = found.to_dense()[:, 0].bool()
    assert torch.equal(listed, some)
    full = torch.zeros_like(whole)
    for row in range(rows):
        for query, count in enumerate(found.full_kv_num_blocks[row, 0]):
            full[row, query, found.full_kv_indices[row, 0, query, :count].long()] = True
    # a block is only left to itself where all of it is seen
    assert torch.equal(full, whole)


def test_flex_gives_the_loss_and_gradients_of_the_mask(folder: Path, reference_flex: None) -> None:
    sequences = [branches([20, 40, 90], 150, 1), branches([30], 30, 2), branches([9, 7], 3, 3)]
    expected = loss_and_gradients(folder, sequences, None, "mask")
    assert_same(loss_and_gradients(folder, sequences, "flex", "segments"), expected)
    assert_same(loss_and_gradients(folder, sequences, "sdpa", "rows"), expected)


def test_a_row_alone_needs_no_mask(folder: Path) -> None:
    sequences = [branches([30], 30, 1), branches([5], 10, 2)]
    batch = collate(sequences, 0, "rows")
    assert not {"attention_mask", "segments"} & set(batch)
    expected = loss_and_gradients(folder, sequences, None, "mask")
    assert_same(loss_and_gradients(folder, sequences, "sdpa", "rows"), expected)


def test_flash_gives_the_loss_and_gradients_of_the_mask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen

    longest: list[int] = []

    def one_by_one(
        query: Any, key: Any, value: Any, bounds: Any, other: Any, most: int, most_keys: int, **named: Any
    ) -> Any:
        """Compute as the kernel's documentation says it does: documents by themselves, causally."""
        assert torch.equal(bounds, other)
        assert most == most_keys == int(bounds.diff().max())
        assert (bounds.dtype, named["window_size"], named["enable_gqa"]) == (torch.int32, (-1, 0), True)
        longest.append(most)
        parts = [
            torch.nn.functional.scaled_dot_product_attention(
                *(part[start:end].transpose(0, 1)[None] for part in (query, key, value)),
                is_causal=True, scale=named["scale"], enable_gqa=True,
            )[0].transpose(0, 1)
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        ]  # fmt: skip
        return torch.cat(parts)

    # its kernels are CUDA's, and weren't run: what is checked is what they are told
    monkeypatch.setattr(varlen, "varlen_attn", one_by_one)
    documents = [torch.randint(3, 400, (length,)).tolist() for length in (30, 5, 70, 12, 40)]
    texts = [sequence for sequence, _ in pack_texts(documents, 64)]
    expected = loss_and_gradients(folder, texts, None, "mask")
    assert_same(loss_and_gradients(folder, texts, "flash", "segments"), expected)
    assert max(longest) < 64

    rows = [branches([30], 30, 1), branches([5], 10, 2)]
    assert_same(loss_and_gradients(folder, rows, "flash", "segments"), loss_and_gradients(folder, rows, None, "mask"))
    assert longest[-1] == 60


def test_flash_refuses_a_shared_prefix() -> None:
    with pytest.raises(InputError, match="rows that share a prefix"):
        document_bounds(collate([branches([5, 5], 5, 1)], 0, "segments")["segments"])


def test_layers_that_see_a_window_keep_their_masks(folder: Path) -> None:
    model = load_model(folder)
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert not use_attention(model, "sdpa", "cpu")
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(InputError, match="every earlier token"):
        use_attention(model, "flex", "cpu")
