"""Greedy generation for many prompts: shared prefixes are computed once, finished prompts make room for waiting ones.

Used by the task evaluation and the decision. Prefill walks the tree of shared prefixes; decoding runs in slots. The
tokens are those that `model.generate(do_sample=False)` gives prompt by prompt (a test holds this in float32).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.data.chat import prompt_ids, special_ids
from components.errors import InputError
from components.evaluation.attention import has_full_attention, prefill_places
from components.evaluation.head_answers import head_answers
from components.evaluation.kv_cache import Layers, PrefillCache, SlotCache, join
from components.evaluation.prefix_tree import PrefixNode, plan_prefixes
from components.models.batches import length_batches
from components.models.forward import causal_model, logits
from components.models.head import HeadedModel
from components.models.rope import cached_positions, config_positions
from components.models.soft_prompt import virtual_layers, virtual_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from components.data.rows import Message

__all__ = [
    "Completion",
    "answer_positions",
    "check_lengths",
    "decode",
    "generate",
    "generate_ids",
    "has_full_attention",
    "prefill",
    "stop_ids",
]

# Where a config says nothing of positions.
UNLIMITED_POSITIONS = 1 << 30


@dataclass(frozen=True)
class Completion:
    """What the model answered to one prompt.

    Attributes:
        text: The answer without special tokens.
        prompt_tokens: Length of the prompt.
        completion_tokens: Tokens generated, the one that ends the turn included.
        seconds: This prompt's share of the wall time: passes are shared out evenly over the prompts in them.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass
class _Prompt:
    """A prompt on its way through the model."""

    index: int
    prefix: Layers
    added: Layers
    tokens: int
    generated: list[int] = field(default_factory=list)
    seconds: float = 0.0


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Answer every prompt greedily.

    Args:
        model: A causal language model, bare or wrapped by peft, which is put into evaluation mode and back; or a base
            with a head, whose answer is a label or a number, whatever its length.
        tokenizer: Its tokenizer, with a chat template.
        prompts: The turns before each answer.
        max_new_tokens: Most tokens an answer may have.
        batch_size: Prompts decoded at once; on a processor 32 take a fifth less time than 16.
        progress: Called with (finished, all) after each finished prompt.

    Returns:
        One completion a prompt, in the order given.

    Raises:
        InputError: A prompt and its answer don't fit the model's positions.
    """
    if isinstance(model, HeadedModel):
        return [Completion(*found) for found in head_answers(model, tokenizer, prompts, batch_size, progress)]
    encoded = [prompt_ids(tokenizer, messages) for messages in prompts]
    stops = stop_ids(model, tokenizer)
    found = generate_ids(
        model, encoded, max_new_tokens=max_new_tokens, stops=stops, batch_size=batch_size, progress=progress
    )
    return [
        Completion(tokenizer.decode(ids, skip_special_tokens=True), len(prompt), len(ids), seconds)
        for prompt, (ids, seconds) in zip(encoded, found, strict=True)
    ]


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer: the model's and tokenizer's end of text, and the template's turn end."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    stops = set(configured) if isinstance(configured, list | tuple) else {configured}
    stops.add(tokenizer.eos_token_id)
    mark = "ANSWER"
    turns = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": mark}]
    ending = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(mark)[2]
    special = special_ids(tokenizer)
    stops.update([i for i in tokenizer(ending, add_special_tokens=False)["input_ids"] if i in special][:1])
    return frozenset(int(i) for i in stops if i is not None)


def generate_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stops: frozenset[int],
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[list[int], float]]:
    """Continue every prompt greedily until a stop token.

    Args:
        model: A causal language model, bare or wrapped by peft.
        prompts: Token ids of every prompt.
        max_new_tokens: Most tokens generated, at least 1.
        stops: Tokens after which a prompt is finished.
        batch_size: Prompts decoded at once; on a processor 32 take a fifth less time than 16.
        progress: Called with (finished, all) after each finished prompt.

    Returns:
        For each prompt the generated ids, stop token included, and its share of the seconds.

    Raises:
        InputError: A prompt is empty, or doesn't fit the model's positions together with its answer.
    """
    import torch

    check_lengths(model, prompts, max_new_tokens)
    if not prompts:
        return []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            run = _run_slots if has_full_attention(model) else _run_one_by_one
            return run(model, prompts, max_new_tokens, stops, batch_size, progress or (lambda _done, _all: None))
    finally:
        model.train(was_training)


def answer_positions(model: Any) -> int:
    """Return how many positions a prompt and its answer may take together.

    Args:
        model: A causal language model, bare or wrapped by peft.
    """
    positions = cached_positions(causal_model(model).config)
    return (UNLIMITED_POSITIONS if positions is None else positions) - virtual_tokens(model)


def check_lengths(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that a model can't answer.

    Args:
        model: A causal language model, bare or wrapped by peft.
        prompts: Token ids of every prompt.
        max_new_tokens: Most tokens generated.

    Raises:
        InputError: A prompt is empty, or doesn't fit the model's positions together with its answer.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}", allowed="1 or more")
    positions, config = answer_positions(model), causal_model(model).config
    # a scaling that a cache can't follow is not one that reaches further
    follows = config_positions(config) == cached_positions(config)
    further = "or set finetune.rope_scaling" if follows else "or scale by yarn or linear"
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {index} has no tokens")
        if len(prompt) + max_new_tokens > positions:
            raise InputError(
                f"prompt {index} has {len(prompt)} tokens, which with {max_new_tokens} new ones is more than the "
                f"model's {positions} positions for answers",
                allowed=f"prompts of at most {positions - max_new_tokens} tokens",
                next_step=f"shorten the prompt, carry fewer examples, lower max_new_tokens, {further}",
            )


def _run_slots(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: frozenset[int],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> list[tuple[list[int], float]]:
    import torch

    device = causal_model(model).get_input_embeddings().weight.device
    waiting = _prefilled(model, prompts, plan_prefixes(prompts), virtual_layers(model), 0.0, batch_size, device)
    cache = SlotCache(min(batch_size, len(prompts)))
    active: list[_Prompt] = []
    results: list[tuple[list[int], float]] = [([], 0.0)] * len(prompts)
    done = 0

    def finished(prompt: _Prompt) -> bool:
        return prompt.generated[-1] in stops or len(prompt.generated) >= max_new_tokens

    def finish(prompt: _Prompt) -> None:
        nonlocal done
        results[prompt.index] = (prompt.generated, prompt.seconds)
        done += 1
        progress(done, len(prompts))

    exhausted = False
    while not exhausted or active:
        while not exhausted and len(active) < cache.slots:
            prompt = next(waiting, None)
            if prompt is None:
                exhausted = True
            elif finished(prompt):
                finish(prompt)
            else:
                cache.admit(prompt.prefix, prompt.added, prompt.tokens)
                prompt.prefix, prompt.added = [], []
                active.append(prompt)
        if not active:
            continue
        started = time.perf_counter()
        position_ids, mask = cache.begin_step()
        newest = torch.tensor([[prompt.generated[-1]] for prompt in active], device=device)
        states = decode(model, newest, position_ids, mask, cache)
        chosen = _best(model, states[:, -1])
        share = (time.perf_counter() - started) / len(active)
        for prompt, token in zip(active, chosen, strict=True):
            prompt.generated.append(token)
            prompt.seconds += share
        for slot in range(len(active) - 1, -1, -1):
            if finished(active[slot]):
                finish(active[slot])
                cache.release(slot)
                active[slot] = active[-1]
                active.pop()
    return results


def _prefilled(
    model: Any,
    prompts: Sequence[Sequence[int]],
    node: PrefixNode,
    prefix: Layers,
    prefix_seconds: float,
    batch_size: int,
    device: Any,
) -> Iterator[_Prompt]:
    """Walk the tree of prefixes and yield every prompt once its first new token is known."""
    import torch

    if node.end > node.start:
        started = time.perf_counter()
        cache = PrefillCache(prefix)
        prefill(model, torch.tensor([list(prompts[node.sample][node.start : node.end])], device=device), cache)
        prefix = join(prefix, cache.added)
        prefix_seconds += (time.perf_counter() - started) / node.size
    for batch in length_batches(node.prompts, [len(prompt) - node.end for prompt in prompts], batch_size):
        started = time.perf_counter()
        rest = [list(prompts[index][node.end :]) for index in batch]
        longest = max(map(len, rest))
        # padding stands on the right: under the causal mask no real token sees it
        ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rest], device=device)
        cache = PrefillCache(prefix)
        states = prefill(model, ids, cache)
        ends = torch.tensor([len(row) - 1 for row in rest], device=device)
        chosen = _best(model, states[torch.arange(len(rest), device=device), ends])
        seconds = prefix_seconds + (time.perf_counter() - started) / len(batch)
        for row, (index, token) in enumerate(zip(batch, chosen, strict=True)):
            added = [(keys[row : row + 1], values[row : row + 1]) for keys, values in cache.added]
            yield _Prompt(index, prefix, added, len(rest[row]), [token], seconds)
    for child in node.children:
        yield from _prefilled(model, prompts, child, prefix, prefix_seconds, batch_size, device)


def prefill(model: Any, ids: Tensor, cache: PrefillCache) -> Tensor:
    """Run tokens [B, T] behind the cache's prefix; return hidden states [B, T, H]."""
    rows, tokens = ids.shape
    dtype = causal_model(model).get_input_embeddings().weight.dtype
    places, mask = prefill_places(cache.get_seq_length(), tokens, dtype=dtype, device=ids.device)
    return decode(model, ids, places.expand(rows, -1), mask.expand(rows, -1, -1, -1), cache)


def decode(model: Any, ids: Tensor, position_ids: Tensor, mask: Tensor, cache: PrefillCache | SlotCache) -> Tensor:
    """Run tokens [B, T] at their positions under an additive mask; return hidden states [B, T, H]."""
    output = causal_model(model).get_decoder()(
        input_ids=ids, position_ids=position_ids, attention_mask=mask, past_key_values=cache, use_cache=True
    )
    states: Tensor = output.last_hidden_state
    return states


def _best(model: Any, states: Tensor) -> list[int]:
    """Return the likeliest token for each hidden state [B, H]."""
    chosen: list[int] = logits(model, states).argmax(dim=-1).tolist()
    return chosen


def _run_one_by_one(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: frozenset[int],
    _batch_size: int,
    progress: Callable[[int, int], None],
) -> list[tuple[list[int], float]]:
    """Fall back to transformers' own loop for models whose layers see less than all earlier tokens."""
    import torch

    inner = causal_model(model)
    results = []
    for number, prompt in enumerate(prompts, start=1):
        started = time.perf_counter()
        ids = torch.tensor([list(prompt)], device=inner.get_input_embeddings().weight.device)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(stops) or None,
            pad_token_id=next(iter(sorted(stops)), 0),
        )
        results.append((output[0, len(prompt) :].tolist(), time.perf_counter() - started))
        progress(number, len(prompts))
    return results
