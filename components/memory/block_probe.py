"""Time what a training step consists of on the device at hand: a few real blocks, the output layer, the optimizer.

The blocks are the base's own class at its own shapes, prepared by the method, with arbitrary weights, run forward and
backward one after the other. A single small one would find its weights and activations in the processor's cache, which
in training they have long left: it ran a tenth faster on a 135M model. Matrix products alone are timed as well, to say
how much of a step is anything else. The plan's time is made of these measurements and of the operations.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.memory.settings import StepSettings
from components.models.blocks import decoder_blocks

__all__ = ["BlockRate", "StepSpeed", "measure_step_speed"]

# About how long blocks are timed, and each smaller part; a block of a large model takes longer in a single pass. On a
# shared machine the same pass takes half as long again a second later, so that blocks are timed for a while.
BLOCKS_SECONDS = 4.0
PART_SECONDS = 0.25
LONGEST_PASS_SECONDS = 0.15
# Rounds, at least and at most.
ROUNDS = (2, 24)
SHORTEST_TOKENS = 32
# Time of the output layer is in proportion to the tokens that go through it.
OUTPUT_TOKENS = 64
# What the probe allocates for an output layer, at most; a larger vocabulary is cut and its time scaled up.
LARGEST_OUTPUT_BYTES = 256 * 2**20
PRODUCT_TOKENS = 128
# Blocks that are run in a row: as many as hold so many weights, but no more than a few.
COLD_BYTES = 256 * 2**20
MOST_BLOCKS = 4


@dataclass(frozen=True)
class BlockRate:
    """A block, forward and backward, at one length; the mean of the blocks that ran in a row.

    Attributes:
        sequences: Sequences at once.
        tokens: Tokens of each.
        seconds: Mean time: a run pays for its slow passes too, which a median would leave out.
        forward_seconds: Mean time of the forward pass without gradients.
        flops: Operations of the pass, recomputation included.
        spread: Standard deviation of the passes against their mean.
    """

    sequences: int
    tokens: int
    seconds: float
    forward_seconds: float
    flops: int
    spread: float

    @property
    def flops_per_second(self) -> float:
        """Operations a second of the whole pass."""
        return self.flops / self.seconds


@dataclass(frozen=True)
class StepSpeed:
    """What was measured.

    Attributes:
        device: cpu or cuda.
        dtype: dtype of computation.
        rates: One or two lengths, the shorter first.
        output_seconds: Time of the output layer and the loss for one labelled token, forward and backward.
        optimizer_seconds: Time of the optimizer and of clipping for one trained parameter.
        product_flops_per_second: Rate of a matrix product of the model's own shape.
        seconds: How long the measurement took.
    """

    device: str
    dtype: str
    rates: tuple[BlockRate, ...]
    output_seconds: float
    optimizer_seconds: float
    product_flops_per_second: float
    seconds: float

    @property
    def spread(self) -> float:
        """How far passes differed, as a fraction."""
        return max(rate.spread for rate in self.rates)


def measure_step_speed(
    config: Any,
    settings: StepSettings,
    *,
    sequences: int,
    lengths: tuple[int, ...],
    labelled: int,
    gradient_checkpointing: bool,
) -> StepSpeed | None:
    """Measure the parts of a training step.

    Args:
        config: The base's config.
        settings: Method, rank, targets, dtype.
        sequences: Sequences of a micro-batch.
        lengths: One or two lengths of sequences to measure at, the shorter first.
        labelled: Tokens of a micro-batch that go through the output layer.
        gradient_checkpointing: Whether blocks are computed again.

    Returns:
        The measurement; None for an architecture whose blocks don't stand in a list.
    """
    import torch

    started = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, vocabulary = _shallow_model(config, settings, device)
    blocks = decoder_blocks(model)
    if not blocks:
        return None
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    dtype = getattr(torch, settings.dtype)
    product = _product_rate(config.hidden_size, dtype, device)
    weights = _block_weights(blocks[0])
    shapes: list[tuple[int, int]] = []
    for length in lengths:
        # forward, backward to the input and, where weights are trained, to them; more when blocks are computed again
        passes = (3 if settings.method == "full" else 2) + gradient_checkpointing
        most = max(SHORTEST_TOKENS, int(LONGEST_PASS_SECONDS * product / (2 * passes * weights)))
        rows = max(1, min(sequences, most // length))
        shape = rows, min(length, most)
        if shape not in shapes:
            shapes.append(shape)
    rates = _block_rates(model, list(blocks), shapes, dtype, device, settings.attention)
    output = _output_seconds(config.hidden_size, vocabulary, min(max(1, labelled), OUTPUT_TOKENS), dtype, device)
    return StepSpeed(
        device=device,
        dtype=settings.dtype,
        rates=rates,
        output_seconds=output * config.vocab_size / vocabulary,
        optimizer_seconds=_optimizer_seconds(blocks[0], model, device),
        product_flops_per_second=product,
        seconds=time.perf_counter() - started,
    )


def _shallow_model(config: Any, settings: StepSettings, device: str) -> tuple[Any, int]:
    """Build a model of a few blocks on the device, prepared for training; return it and its vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM

    from components.finetuning.methods import METHODS
    from components.finetuning.prompt_tuning import SoftPromptSettings
    from components.memory.fake_model import prepared
    from components.models.packed_attention import use_attention

    dtype = torch.float32 if settings.method == "full" else getattr(torch, settings.dtype)
    bytes_per_value = torch.empty((), dtype=dtype).element_size()
    # attention and the gated layers of a block, as most decoders have them; only the number of blocks hangs on it
    block_bytes = config.hidden_size * (4 * config.hidden_size + 3 * config.intermediate_size) * bytes_per_value
    depth = max(1, min(config.num_hidden_layers, MOST_BLOCKS, COLD_BYTES // block_bytes))
    small = copy.deepcopy(config)
    for name, value in list(vars(small).items()):
        if isinstance(value, list) and len(value) == config.num_hidden_layers > depth:
            setattr(small, name, value[:depth])
    small.num_hidden_layers = depth
    # the embedding isn't timed; what stands for the output layer is made apart
    small.vocab_size = min(config.vocab_size, 512)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(small, name, None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(small, dtype=dtype, attn_implementation="sdpa")
    model = model.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(0.01)
    if settings.method == "qlora":
        _quantize(model, dtype, device)
        model.is_loaded_in_4bit = True
    if METHODS[settings.method].settings is not SoftPromptSettings:
        use_attention(model, "sdpa" if settings.attention == "alone" else settings.attention, device)
    model = prepared(model, settings)
    model.train()
    largest = LARGEST_OUTPUT_BYTES // (config.hidden_size * bytes_per_value)
    return model, min(config.vocab_size, largest)


def _quantize(model: Any, dtype: Any, device: str) -> None:
    import bitsandbytes
    import torch

    kept = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and child is not kept:
                layer = bitsandbytes.nn.Linear4bit(
                    child.in_features, child.out_features, bias=child.bias is not None, compute_dtype=dtype,
                    compress_statistics=True, quant_type="nf4",
                )  # fmt: skip
                layer.weight = bitsandbytes.nn.Params4bit(
                    child.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
                )
                layer.bias = child.bias
                setattr(parent, name, layer.to(device))


def _block_weights(block: Any) -> int:
    """Return the weights of a block's matrix products, a packed 4-bit one counting as two."""
    return sum(p.numel() * (2 if type(p).__name__ == "Params4bit" else 1) for p in block.parameters() if p.dim() > 1)


def _block_rates(
    model: Any, blocks: list[Any], shapes: list[tuple[int, int]], dtype: Any, device: str, attention: str
) -> tuple[BlockRate, ...]:
    """Time the blocks at each shape in turn: lengths follow each other as in training, and share what comes between."""
    from components.memory.storages import StorageLog, tracking

    work: list[Callable[[], None]] = []
    flops: list[int] = []
    for sequences, tokens in shapes:
        both, forward = _passes(model, blocks, sequences, tokens, dtype, device, attention)
        log = StorageLog()
        with tracking(log):
            both()  # the first pass also pays for set-up
        work += (both, forward)
        flops.append(log.flops // len(blocks))
    times = _times_in_turn(work, device, BLOCKS_SECONDS)
    rates = []
    for index, (sequences, tokens) in enumerate(shapes):
        whole, forward_alone = times[2 * index], times[2 * index + 1]
        mean = statistics.fmean(whole)
        rates.append(
            BlockRate(
                sequences,
                tokens,
                mean / len(blocks),
                statistics.fmean(forward_alone) / len(blocks),
                flops[index],
                statistics.stdev(whole) / mean,
            )
        )
    return tuple(rates)


def _passes(
    model: Any, blocks: list[Any], sequences: int, tokens: int, dtype: Any, device: str, attention: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what runs the blocks at a shape: forward and backward, and forward without gradients."""
    import torch

    from components.models.forward import hidden_states
    from components.models.soft_prompt import soft_prompt_of

    prompt: Any = soft_prompt_of(model)
    taken: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = blocks[0].register_forward_pre_hook(lambda _, args, kwargs: taken.append((args, kwargs)), with_kwargs=True)
    batch = {
        "input_ids": torch.zeros(sequences, tokens, dtype=torch.int64, device=device),
        "position_ids": torch.arange(tokens, device=device).expand(sequences, tokens),
    }
    if attention == "sdpa":
        seen = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
        batch["attention_mask"] = seen.expand(sequences, 1, tokens, tokens)
    elif attention != "alone":
        # one row a sequence, which hides least
        batch["segments"] = torch.ones(sequences, tokens, dtype=torch.int64, device=device)
    with torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32), torch.no_grad():
        hidden_states(model, batch)
    hook.remove()
    arguments, named = taken[0]
    states = arguments[0].detach().requires_grad_()

    def forward() -> Any:
        # a prefix is handed on as a cache, which every pass makes longer
        cache = {"past_key_values": prompt.get_prompt(sequences)} if named.get("past_key_values") is not None else {}
        with torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32):
            found = states
            for block in blocks:
                output = block(found, *arguments[1:], **{**named, **cache})
                found = output[0] if isinstance(output, tuple) else output
        return found

    def both() -> None:
        output = forward()
        output.backward(torch.ones_like(output))

    def without_gradients() -> None:
        with torch.no_grad():
            forward()

    return both, without_gradients


def _output_seconds(hidden_size: int, vocabulary: int, labelled: int, dtype: Any, device: str) -> float:
    """Time the output layer and the loss, for one labelled token."""
    import torch

    from components.finetuning.loss import weighted_token_loss

    weight = torch.full((vocabulary, hidden_size), 0.01, dtype=dtype, device=device)
    hidden = torch.ones(1, labelled, hidden_size, dtype=dtype, device=device, requires_grad=True)
    labels = torch.zeros(1, labelled, dtype=torch.int64, device=device)
    weights = torch.ones(1, labelled, device=device)

    def both() -> None:
        with torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32):
            loss = weighted_token_loss(
                hidden, lambda states: (states.to(dtype) @ weight.T).float(), labels, weights, float(labelled)
            )
        loss.backward()  # type: ignore[no-untyped-call]

    both()
    return statistics.fmean(_times(both, device)) / labelled


def _optimizer_seconds(block: Any, model: Any, device: str) -> float:
    """Time AdamW and the clipping of gradients, for one trained parameter: of a block, or else of a soft prompt."""
    import torch

    trained = [parameter for parameter in block.parameters() if parameter.requires_grad]
    trained = trained or [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-9)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()

    step()
    return statistics.fmean(_times(step, device)) / sum(parameter.numel() for parameter in trained)


def _product_rate(hidden_size: int, dtype: Any, device: str) -> float:
    """Return the operations a second of a matrix product as wide as the model."""
    import torch

    layer = torch.ones(hidden_size, hidden_size, dtype=dtype, device=device)
    states = torch.ones(PRODUCT_TOKENS, hidden_size, dtype=dtype, device=device)

    def product() -> None:
        torch.mm(states, layer)

    product()
    return 2 * PRODUCT_TOKENS * hidden_size**2 / statistics.median(_times(product, device, PART_SECONDS / 4))


def _times(work: Callable[[], None], device: str, seconds: float = PART_SECONDS) -> list[float]:
    """Time some passes: at least a few, more while there is time."""
    return _times_in_turn([work], device, seconds)[0]


def _times_in_turn(work: list[Callable[[], None]], device: str, seconds: float) -> list[list[float]]:
    """Time each of several, round after round: at least a few rounds, more while there is time."""
    import torch

    fewest, enough = ROUNDS
    times: list[list[float]] = [[] for _ in work]
    began = time.perf_counter()
    while True:
        for each, taken in zip(work, times, strict=True):
            started = time.perf_counter()
            each()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
        rounds, passed = len(times[0]), time.perf_counter() - began
        if rounds >= fewest and (passed >= seconds or rounds >= enough):
            return times
