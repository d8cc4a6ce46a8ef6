"""The canary: a probe whose answer was recorded when the model was staged, asked again before a server is ready.

The recording is made with transformers' own loop, the check with the serving engine, so that a fault of the engine
shows as well as a fault of the weights, the tokenizer or the template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.data.rows import Message
from components.errors import InputError, VerdictError

__all__ = [
    "PROBES",
    "QUANTIZED_TIE_MARGIN",
    "TIE_MARGIN",
    "Canary",
    "CanaryFailedError",
    "check_canary",
    "record_canary",
]

# Asked in this order until ENOUGH_TOKENS of an answer can be compared: one that begins with a near tie proves nothing.
PROBES = (
    (Message("user", "How many letters does the alphabet have?"),),
    (Message("user", "Write the numbers from one to ten."),),
    (Message("user", "Hello!"),),
)
PROBE_TOKENS = 16
ENOUGH_TOKENS = 4
# Where the two likeliest tokens are closer than this, rounding may turn them round, so what follows proves nothing.
# In float32 the logits of two orders of summation differ by some 1e-4; in 16 bits and in 4 by some 1e-1.
TIE_MARGIN = {"float32": 0.01, "bfloat16": 0.5, "float16": 0.5}
QUANTIZED_TIE_MARGIN = 0.5


class CanaryFailedError(VerdictError):
    """The model does not answer the probe as it was recorded. `details` says how."""

    def __init__(
        self,
        problem: str,
        details: Mapping[str, Any],
        *,
        allowed: str = "the answer that was recorded when the model was staged",
        next_step: str = "compare library versions and machine with those of the recording; bundle the version again",
    ) -> None:
        super().__init__(problem, allowed=allowed, next_step=next_step)
        self.details = dict(details)


@dataclass(frozen=True)
class Canary:
    """A recorded probe.

    Attributes:
        messages: The turns asked.
        prompt: Their token ids.
        tokens: The greedy answer's token ids.
        compared: How many of them are compared, at least 1: those before the first near tie.
        text: The greedy answer, for people.
    """

    messages: tuple[Message, ...]
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    compared: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Canary:
        """Read what `to_dict` gave.

        Raises:
            InputError: It is not a recorded probe.
        """
        try:
            return cls(
                messages=tuple(Message(turn["role"], turn["content"]) for turn in document["messages"]),
                prompt=tuple(int(token) for token in document["prompt"]),
                tokens=tuple(int(token) for token in document["tokens"]),
                compared=int(document["compared"]),
                text=str(document["text"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the recorded canary can't be read: {error}", next_step="bundle again") from error


def record_canary(
    model: Any,
    tokenizer: Any,
    probes: Sequence[Sequence[Message]] = PROBES,
    *,
    dtype: str = "float32",
    quantization: str | None = None,
) -> Canary:
    """Answer a probe greedily with transformers' own loop.

    Args:
        model: The model as it will be served.
        tokenizer: Its tokenizer.
        probes: Turns to ask; the first answer of which `ENOUGH_TOKENS` can be compared is recorded, else the best.
        dtype: The model's dtype.
        quantization: How its weights are quantized, None for plain ones; with the dtype it decides what counts as a
            near tie.

    Raises:
        CanaryFailedError: The logits are not finite, or every answer begins with a near tie.
    """
    margin = TIE_MARGIN[dtype] if quantization is None else max(QUANTIZED_TIE_MARGIN, TIE_MARGIN[dtype])
    best: Canary | None = None
    for messages in probes:
        canary = _record(model, tokenizer, messages, margin)
        if best is None or canary.compared > best.compared:
            best = canary
        if best.compared >= ENOUGH_TOKENS:
            break
    if best is not None and best.compared:
        return best
    raise CanaryFailedError(
        f"the answers to all {len(probes)} probes begin with a near tie: nothing of them can be compared",
        {"margin": margin, "probes": len(probes)},
        allowed=f"a model whose likeliest first token is ahead of the next by {margin} in its logits, on one probe",
        next_step="train longer, or look at what the model answers: it hardly tells one token from another",
    )


def _record(model: Any, tokenizer: Any, messages: Sequence[Message], margin: float) -> Canary:
    import torch

    from components.data.chat import prompt_ids
    from components.evaluation.generation import stop_ids
    from components.models.head import HeadedModel
    from components.models.soft_prompt import soft_prompt_of

    prompt = prompt_ids(tokenizer, messages)
    if isinstance(model, HeadedModel):
        return _record_head(model, tokenizer, messages, prompt, margin)
    stops = stop_ids(model, tokenizer)
    ids = torch.tensor([prompt], device=model.get_input_embeddings().weight.device)
    # peft lays a soft prompt before whatever it is given, a cache or a single token behind one too
    cached = soft_prompt_of(model) is None
    tokens: list[int] = []
    margins: list[float] = []
    past = None
    with torch.inference_mode():
        while len(tokens) < PROBE_TOKENS and not (tokens and tokens[-1] in stops):
            output = model(input_ids=ids, past_key_values=past, use_cache=cached)
            logits, past = output.logits[0, -1].float(), output.past_key_values if cached else None
            if not bool(torch.isfinite(logits).all()):
                raise CanaryFailedError("the model's logits are not finite (NaN or infinite)", {"tokens": tokens})
            best = torch.topk(logits, 2)
            margins.append(float(best.values[0] - best.values[1]))
            tokens.append(int(best.indices[0]))
            last = best.indices[:1][None]
            ids = last if cached else torch.cat((ids, last), dim=1)
    ties = [place for place, ahead in enumerate(margins) if ahead < margin]
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return Canary(tuple(messages), tuple(prompt), tuple(tokens), ties[0] if ties else len(tokens), text)


def _record_head(
    model: Any, tokenizer: Any, messages: Sequence[Message], prompt: Sequence[int], margin: float
) -> Canary:
    """Record the label or number of a probe, by a pass of transformers' own with every layer's states.

    Of a label all tokens are compared, or none where a second class is near; of a number those that a small difference
    leaves as they are.
    """
    import torch

    from components.models.features import pool
    from components.models.head import answer_ids

    head, device = model.head, model.base.get_input_embeddings().weight.device
    config = head.config
    ids = torch.tensor([prompt], device=device)
    with torch.inference_mode():
        states = model.base(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        states = states[-1 if config.layer == "last" else config.layer]
        output = head.outputs(pool(states, torch.tensor([len(prompt)], device=device), config.pooling).cpu())[0]
    if not bool(torch.isfinite(output).all()):
        raise CanaryFailedError("the head's outputs are not finite (NaN or infinite)", {"outputs": output.tolist()})
    text = head.text(output)
    tokens = answer_ids(tokenizer, text)
    if config.task == "classification":
        best = torch.topk(output, 2).values
        compared = len(tokens) if float(best[0] - best[1]) >= margin else 0
    else:
        value, step = float(output[0]), margin * config.target_scale
        around = [answer_ids(tokenizer, head.number(value + change)) for change in (-step, step)]
        columns = zip(tokens, *around, strict=False)
        same = [len(set(column)) == 1 for column in columns]
        compared = same.index(False) if False in same else len(same)
    return Canary(tuple(messages), tuple(prompt), tuple(tokens), compared, text)


def check_canary(
    canary: Canary,
    encode: Callable[[Sequence[Message]], list[int]],
    continue_greedily: Callable[[Sequence[int], int], list[int]],
) -> dict[str, Any]:
    """Ask the probe again.

    Args:
        canary: What was recorded.
        encode: Renders turns into token ids, as requests are.
        continue_greedily: Generates from token ids, as requests are; raises when logits are not finite.

    Returns:
        What was found: `passed`, `compared` tokens, the `text` recorded.

    Raises:
        CanaryFailedError: The prompt has other tokens, the answer differs within the compared tokens, or none of them
            can be compared.
    """
    found: dict[str, Any] = {"passed": False, "compared": canary.compared, "text": canary.text}
    if canary.compared < 1:
        raise CanaryFailedError("no token of the recorded canary can be compared, so it proves nothing", found)
    prompt = encode(canary.messages)
    if tuple(prompt) != canary.prompt:
        raise CanaryFailedError(
            "the canary's prompt has other tokens than when it was recorded: another tokenizer or chat template", found
        )
    tokens = continue_greedily(prompt, len(canary.tokens))
    expected, given = list(canary.tokens[: canary.compared]), tokens[: canary.compared]
    if given != expected:
        place = next((i for i, pair in enumerate(zip(expected, given, strict=False)) if pair[0] != pair[1]), len(given))
        raise CanaryFailedError(
            f"the canary's answer differs from the recorded one at token {place + 1} of {canary.compared}",
            {**found, "expected": expected, "given": given},
        )
    return {**found, "passed": True}
