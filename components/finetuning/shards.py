"""Sharded training: every process holds a part of weights, gradients and optimizer states (torch's FSDP2). Behind the
trainer.

Each block of the decoder is gathered for its own computation, forward and backward, and let go behind it; what lies
outside the blocks (embeddings, final norm, head, soft prompts) is gathered for the whole pass, since the loss uses the
head in parts (Zhao et al. 2023, arXiv:2304.11277). What is written is whole: a checkpoint doesn't say how it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from components.errors import InputError
from components.finetuning.methods import METHODS
from components.finetuning.tensor_file import in_order
from components.models.blocks import decoder_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from components.finetuning.settings import FinetuneSettings

__all__ = [
    "check_shardable",
    "copy_part",
    "gathered_dtype",
    "part_of",
    "shard",
    "take_part",
    "whole",
    "whole_state",
    "with_outer_weights",
]

Found = TypeVar("Found")


def check_shardable(method: str, optimizer: str, quantization_aware: str | None) -> None:
    """Refuse what can't be parted, before time is spent.

    Args:
        method: A name in `METHODS`, or "auto", which the plan chooses of full and lora then.
        optimizer: A name of the plan's.
        quantization_aware: The integers that whole weights are trained for, or None.

    Raises:
        InputError: Weights in 4 bits, optimizers of bitsandbytes, training for integers, a head.
    """
    ddp = "set finetune.parallel to ddp, where each process has all of it"
    if method in METHODS and METHODS[method].quantization is not None:
        raise InputError(
            f"{method} with finetune.parallel fsdp: weights in 4 bits are bytes with scales beside them, which can't "
            "be parted by rows",
            allowed=f"{', '.join(name for name, found in METHODS.items() if _parts(found))}",
            next_step=f"{ddp}, or choose lora, whose frozen weights are parted",
        )
    if method in METHODS and METHODS[method].kind == "head":
        raise InputError(
            f"{method} with finetune.parallel fsdp", allowed="methods that train through the base", next_step=ddp
        )
    if optimizer != "auto" and optimizer != "adamw":
        raise InputError(
            f"the optimizer {optimizer} with finetune.parallel fsdp: its states are bitsandbytes' own blocks",
            allowed="adamw",
            next_step="leave the optimizer to the plan",
        )
    if quantization_aware is not None:
        raise InputError(
            f"quantization_aware {quantization_aware} with finetune.parallel fsdp: a layer's scales are those of whole "
            "rows in float32, and blocks are gathered in the dtype of computation",
            allowed="one process, or finetune.parallel ddp",
            next_step=ddp,
        )


def _parts(method: Any) -> bool:
    return method.quantization is None and method.kind != "head"


def gathered_dtype(settings: FinetuneSettings) -> str | None:
    """Return what trained weights are gathered in, where they are parted; None: as they are kept, in float32.

    Beside frozen weights, which are in the dtype of computation already, little is trained: it is gathered as it is,
    and autocast computes with it as in a single process. Whole weights are rounded before they are sent, for half the
    bytes.
    """
    return settings.dtype if METHODS[settings.method].kind == "full" and settings.dtype != "float32" else None


def shard(model: Any, dtype: str | None, device: Any) -> Any:
    """Part a model among the processes: each block, then what is left.

    Args:
        model: A causal language model with what is trained, on the CPU or on the device. What is trained is float32.
        dtype: As `gathered_dtype` gives it.
        device: This process's.

    Returns:
        The same model. Its parameters are kept as they were, and gradients are summed in float32.

    Raises:
        InputError: A decoder without a list of blocks.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=getattr(torch, dtype) if dtype is not None else None,
        reduce_dtype=torch.float32,
        # the outer pass is given a batch's loss weights, which stay what they are
        cast_forward_inputs=False,
    )
    blocks = decoder_blocks(model)
    if not blocks:
        raise InputError(
            f"{type(model).__name__} has no list of blocks that could be parted among processes",
            allowed="decoders whose layers are a list",
            next_step="set finetune.parallel to ddp",
        )
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    # buffers aren't parted
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.device != device:
                module._buffers[name] = buffer.to(device)
    # accelerate would put DistributedDataParallel round it, and refuses what is parted already
    model._is_accelerate_prepared = True
    return model


def with_outer_weights(model: Any, work: Callable[[], Found]) -> Found:
    """Do some work with a model that is parted, without gradients; all processes have to, and on the same input.

    Args:
        model: The model, within `work_as_forward`.
        work: Uses the model's parts; its blocks are gathered as it comes to them.
    """
    import torch

    with torch.no_grad():
        found: Found = model(lambda _: work())
    model.reshard()
    return found


def whole(value: Any) -> Any:
    """Return a tensor gathered from its parts; all processes have to ask. What isn't parted is returned as it is."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor().detach() if isinstance(value, DTensor) else value


def take_part(tensors: Mapping[str, Mapping[str, Any]]) -> None:
    """Give this process's parts of tensors that another one writes, in the order in which it does.

    Args:
        tensors: As `checkpoint.save` takes them.
    """
    for named in tensors.values():
        for _, tensor in in_order(named):
            whole(tensor)


def whole_state(model: Any, keep: bool) -> dict[str, Tensor]:
    """Return the trainable parameters by name, gathered on the CPU; all processes have to ask.

    Args:
        model: A model that is parted.
        keep: Whether this process wants them; empty in the others.
    """
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = whole(parameter)
            if keep:
                found[name] = value.cpu()
    return found


def part_of(value: Any, like: Any) -> Any:
    """Return this process's part of a whole tensor.

    Args:
        value: The whole tensor, the same in every process; nothing is sent.
        like: A parameter of its shape. Where that isn't parted, the whole tensor is returned.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def copy_part(parameter: Any, value: Any) -> None:
    """Put a whole tensor's values into a parameter, or this process's part of them into a parted one."""
    parameter.copy_(part_of(value, parameter))
