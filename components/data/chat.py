"""Chat rendering with a loss weight for every token. Between rows (text) and packing (tensors).

The response carries weight 1, the prompt `prompt_loss_weight` (Huerta-Enochian & Ko 2024, "Instruction
Fine-Tuning: Does Prompt Loss Matter?"), and the token that ends the assistant's turn is trained like the
response: a model that never learns to stop is the commonest defect of a finetuned chat model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from components.data.rows import Message

__all__ = ["Encoded", "encode", "prompt_ids"]


@dataclass(frozen=True)
class Encoded:
    """A rendered conversation.

    Attributes:
        input_ids: Token ids, length T.
        weights: Loss weight of predicting `input_ids[i]`, length T; `weights[0]` is 0, nothing predicts it.
    """

    input_ids: list[int]
    weights: list[float]


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Render a prompt with the template's generation prompt appended.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The turns before the answer.

    Returns:
        Token ids.

    Raises:
        InputError: The tokenizer has no chat template, or the template refuses the turns.
    """
    return _apply_template(tokenizer, messages, add_generation_prompt=True)


def encode(tokenizer: Any, messages: Sequence[Message], *, prompt_loss_weight: float = 0.0) -> Encoded:
    """Render a conversation and weigh every token.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The turns; every assistant turn is a response that is trained.
        prompt_loss_weight: Weight of the tokens that no assistant wrote, 0 to 1.

    Returns:
        Token ids and weights. White space that the template puts after an assistant's turn end has the prompt's weight.

    Raises:
        InputError: No chat template, or a template that renders a turn differently once others follow, so that
            what was said by whom can't be told apart.
    """
    input_ids = _apply_template(tokenizer, messages, add_generation_prompt=False)
    weights = [prompt_loss_weight] * len(input_ids)
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        start = len(_prefix(tokenizer, messages[:index], input_ids, add_generation_prompt=True))
        end = len(_prefix(tokenizer, messages[: index + 1], input_ids, add_generation_prompt=False))
        end = _after_turn_end(tokenizer, input_ids, start, end)
        weights[start:end] = [1.0] * (end - start)
    weights[0] = 0.0
    return Encoded(input_ids, weights)


def _prefix(tokenizer: Any, messages: Sequence[Message], whole: list[int], *, add_generation_prompt: bool) -> list[int]:
    ids = _apply_template(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    if whole[: len(ids)] != ids:
        raise InputError(
            "the chat template renders a turn differently once later turns follow it",
            allowed="a template in which the rendering of the first turns is a prefix of the whole",
            next_step="give a chat template with that property in the base model's folder",
        )
    return ids


def _after_turn_end(tokenizer: Any, ids: list[int], start: int, end: int) -> int:
    """Return the place just behind the turn-end token, leaving out white space that the template adds behind it."""
    # a turn end needn't be one of the named special tokens: with eos <|endoftext|> it is <|im_end|> all the same
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    place = end
    while place > start and ids[place - 1] not in special:
        place -= 1
    return place if place > start else end


def _apply_template(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> list[int]:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the tokenizer has no chat template",
            allowed="a base whose tokenizer carries one (chat_template.jinja, or in tokenizer_config.json)",
            next_step="choose an instruction-tuned base, or add a chat template to its folder",
        )
    from jinja2.exceptions import TemplateError

    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise InputError(
            f"the chat template refuses the turns {[message.role for message in messages]}: {error}",
            allowed="the roles and their order that the template knows",
            next_step="change the rows, or the template in the base model's folder",
        ) from error
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
