"""Attention over packed rows in training: which kernel computes it, and what stands for the mask. Behind forward.py.

Three ways, each exact. `sdpa`: torch's own, with a mask of T x T, or with none where every sequence is one row. `flex`:
FlexAttention (Dong et al. 2024, arXiv:2412.05496), whose kernel is made for a mask that is told as a function, and
passes over blocks of 128 x 128 that it hides. `flash`: FlashAttention's kernel for sequences of various lengths (Dao
2023, arXiv:2307.08691), as torch has it, for documents that see nothing but themselves.

The functions are registered with transformers and look at what they are given, so that a model that trains with one of
them takes dense masks as before, such as those of a generation in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ATTENTIONS",
    "PACKED",
    "attention_inputs",
    "block_mask",
    "document_bounds",
    "sees_all_before",
    "takes_packed_attention",
    "use_attention",
]

ATTENTIONS = ("sdpa", "flex", "flash")
# On a processor the kernel takes keys and values of grouped heads as they are; CUDA's with a mask wants them repeated.
GROUPED, REPEATED = "packed_sdpa_grouped", "packed_sdpa"
# transformers takes a name with "flash" in it for a package of that name
FLEX, FLASH = "packed_flex", "packed_documents"
PACKED = (GROUPED, REPEATED, FLEX, FLASH)
# What a simulated step on fake CPU tensors runs in their place.
SIMULATED = {"flex": "simulated_flex", "flash": "simulated_documents"}
BLOCK_TOKENS = 128
# stand behind all branches: padding, and what is no token at all
_PADDING, _BEHIND = 2**30, 2**31


def sees_all_before(config: Any) -> bool:
    """Tell whether every layer of a model sees all earlier tokens: no sliding window, no chunks.

    Args:
        config: A transformers config.
    """
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return kinds == {"full_attention"} and not sliding


def takes_packed_attention(model: Any) -> bool:
    """Tell whether a model's attention can be computed by one of these kernels.

    Args:
        model: A causal language model without wrappers.
    """
    implementation = model.config._attn_implementation
    known = implementation == "sdpa" or implementation in PACKED or implementation in SIMULATED.values()
    return known and sees_all_before(model.config) and model._can_set_attn_implementation()


def use_attention(model: Any, attention: str, device: str, *, simulated: bool = False) -> bool:
    """Let a transformers model compute attention by a kernel; `model.set_attn_implementation("sdpa")` undoes it.

    Args:
        model: A causal language model without wrappers, loaded with `sdpa`.
        attention: One of `ATTENTIONS`.
        device: cpu or cuda: whose kernels. With simulated steps it need not be that of the tensors.
        simulated: Keep for the backward pass what flex and flash keep, on tensors of a processor.

    Returns:
        Whether it does; a model with layers that see less keeps its own masks, and `sdpa`.

    Raises:
        InputError: Flex or flash for such a model.
    """
    if not takes_packed_attention(model):
        if attention == "sdpa":
            return False
        raise InputError(
            f"finetune.attention {attention} for {type(model).__name__}",
            allowed="decoders whose layers all see every earlier token, through transformers' attention interface",
            next_step="set finetune.attention to sdpa",
        )
    _register()
    own = {"sdpa": GROUPED if device == "cpu" else REPEATED, "flex": FLEX, "flash": FLASH}
    model.set_attn_implementation((SIMULATED if simulated else own).get(attention, own[attention]))
    return True


def attention_inputs(model: Any, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Return what a decoder is told of a batch's mask, as the kernel that it uses wants it.

    Args:
        model: A transformers model.
        batch: As `collate` gives it: with `attention_mask` [B, 1, T, T] bool, or with `segments` [B, T], or with
            neither, where each sequence is one row.

    Returns:
        Arguments of the decoder's forward pass.
    """
    import torch

    kernel = model.config._attn_implementation
    if "segments" in batch:
        segments = batch["segments"]
        if kernel == FLEX:
            return {"attention_mask": block_mask(segments)}
        if kernel == FLASH:
            bounds, longest = document_bounds(segments)
            return {
                "attention_mask": None,
                "cu_seq_lens_q": bounds,
                "cu_seq_lens_k": bounds,
                "max_length_q": longest,
                "max_length_k": longest,
            }
        from components.data.packing import visible

        mask = visible(segments)[:, None]
    elif "attention_mask" in batch:
        mask = batch["attention_mask"]
    else:
        return {"attention_mask": None}
    if kernel not in (GROUPED, REPEATED):
        return {"attention_mask": mask}
    # torch makes a boolean mask additive in each layer, and keeps each layer's for the backward pass
    device = mask.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else model.get_input_embeddings().weight.dtype
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
    return {"attention_mask": hidden}


def block_mask(segments: Tensor) -> Any:
    """Return FlexAttention's mask of packed rows, without laying out T x T.

    Args:
        segments: [B, T]: 0 for a shared prefix, k for branch k, -1 for padding; each sequence in ascending order, the
            padding last, as `collate` gives them.

    Returns:
        A `BlockMask` [B, 1, T, T]: block by block of `BLOCK_TOKENS` whether nothing, a part or all is seen; within
        those of which a part is, a function decides.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    tokens = segments.shape[1]
    ordered = segments.masked_fill(segments < 0, _PADDING)
    ordered = torch.nn.functional.pad(ordered, (0, -tokens % BLOCK_TOKENS), value=_BEHIND)
    blocks = ordered.view(len(ordered), -1, BLOCK_TOKENS)
    first, last = blocks.amin(-1), blocks.amax(-1)
    first_q, last_q, first_k, last_k = first[:, :, None], last[:, :, None], first[:, None, :], last[:, None, :]
    place = torch.arange(first.shape[1], device=segments.device)
    before = place[:, None] > place[None, :]
    # segments ascend, so that an earlier block shares one with a later block only where it ends and the other begins
    some = before & ((last_k == first_q) | ((first_k == 0) & (first_q < _PADDING)))
    some |= place[:, None] == place[None, :]
    of_one = (first_q == last_q) & (last_k == first_q)
    # behind the prefix the first branch begins, so that these two may share a block and nothing else be in it
    own = of_one & ((first_k == last_k) | ((first_k == 0) & (last_k == 1)))
    whole = before & (own | ((last_k == 0) & (last_q < _PADDING)))

    def seen(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own, other = segments[row, query], segments[row, key]
        return (query >= key) & ((own == other) | ((other == 0) & (own > 0)))

    return BlockMask.from_kv_blocks(
        *_counted(some & ~whole), *_counted(whole), BLOCK_SIZE=BLOCK_TOKENS, mask_mod=seen, seq_lengths=(tokens, tokens)
    )


def _counted(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many blocks each row of blocks has, and which, those first."""
    import torch

    order = torch.argsort(chosen.int(), dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32)[:, None], order.to(torch.int32)[:, None]


def document_bounds(segments: Tensor) -> tuple[Tensor, int]:
    """Return where the documents of a batch begin, its sequences laid one behind the other.

    Args:
        segments: [B, T], without a shared prefix; a run of padding is a document of its own.

    Returns:
        Offsets [N + 1] int32, the last one behind the end, and the length of the longest document.

    Raises:
        InputError: A shared prefix, which FlashAttention's kernel can't show to more than one document.
    """
    import torch

    if bool((segments == 0).any()):
        raise InputError(
            "finetune.attention flash with rows that share a prefix",
            allowed="rows alone (finetune.rows_per_sequence 1) or raw text",
            next_step="set finetune.attention to flex, which wants a GPU, or finetune.rows_per_sequence to 1",
        )
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    starts = begins.flatten().nonzero()[:, 0]
    bounds = torch.cat((starts, starts.new_tensor([segments.numel()]))).to(torch.int32)
    return bounds, int(bounds.diff().max())


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for name, function in (
        (GROUPED, _sdpa_grouped),
        (REPEATED, _sdpa),
        (FLEX, _flex),
        (FLASH, _flash),
        (SIMULATED["flex"], _simulated_flex),
        (SIMULATED["flash"], _simulated_flash),
    ):
        AttentionInterface.register(name, function)
        # positions that begin anew would be laid out as a mask, where the documents' bounds say it already
        AttentionMaskInterface.register(name, _no_mask_of_documents if name == FLASH else sdpa_mask)


def _no_mask_of_documents(*arguments: Any, **named: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    return None if named.get("attention_mask") is None else sdpa_mask(*arguments, **named)


def _sdpa(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **named: Any) -> tuple[Any, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: tuple[Any, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **named)
    return found


def _sdpa_grouped(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, scaling: float | None = None, **named: Any
) -> tuple[Any, None]:
    """Compute without repeating the keys and values of grouped heads, which would be kept for the backward pass."""
    import torch

    special = named.get("softcap") is not None or named.get("position_bias") is not None
    if special or named.get("dropout") or query.shape[2] != key.shape[2]:
        return _sdpa(module, query, key, value, attention_mask, scaling=scaling, **named)
    found = torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        scale=scaling,
        is_causal=attention_mask is None,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.transpose(1, 2).contiguous(), None


def _flex(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **named: Any) -> tuple[Any, None]:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers.integrations.flex_attention import flex_attention_forward

    if not isinstance(attention_mask, BlockMask):
        return _sdpa(module, query, key, value, attention_mask, **named)
    query, key, value = _of_one_dtype(query, key, value)
    return flex_attention_forward(module, query, key, value, attention_mask, **named)[0], None


def _flash(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **named: Any) -> tuple[Any, None]:
    from torch.nn.attention import varlen

    bounds, longest = named.pop("cu_seq_lens_q", None), named.pop("max_length_q", None)
    for unused in ("cu_seq_lens_k", "max_length_k"):
        named.pop(unused, None)
    if bounds is None:
        return _sdpa(module, query, key, value, attention_mask, **named)
    rows, tokens = query.shape[0], query.shape[2]
    query, key, value = (part.transpose(1, 2).flatten(0, 1).contiguous() for part in _of_one_dtype(query, key, value))
    found: Any = varlen.varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        scale=named.get("scaling"),
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return found.view(rows, tokens, *found.shape[1:]), None


def _of_one_dtype(*tensors: Any) -> list[Any]:
    """Cast as autocast would: these kernels aren't on its list, and rotary positions leave queries in float32."""
    import torch

    device = tensors[0].device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else tensors[-1].dtype
    return [tensor.to(dtype) for tensor in tensors]


def _simulated_flex(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **named: Any
) -> tuple[Any, None]:
    heads = query.shape[1]
    if heads & (heads - 1):
        # transformers repeats them where the heads are no power of two
        key, value = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value))
    return _simulated_flash(module, query, key, value, attention_mask, **named)


def _simulated_flash(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **named: Any
) -> tuple[Any, None]:
    """Keep queries, keys, values, the output and one number a query and head, as FlashAttention's kernels do."""
    query, key, value = _of_one_dtype(query, key, value)
    return _sdpa_grouped(module, query, key, value, attention_mask, **named)
