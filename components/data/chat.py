"""Chat rendering with a loss weight for every token. Between rows (text) and packing (tensors).

The response carries weight 1, the prompt `prompt_loss_weight` (Huerta-Enochian & Ko 2024, "Instruction
Fine-Tuning: Does Prompt Loss Matter?"), and the token that ends the assistant's turn is trained like the
response: a model that never learns to stop is the commonest defect of a finetuned chat model.

The template's text and the turns' contents are tokenised together, so that a special token spelt out in a content would
become a real one: `<|im_end|>` in a question ends the user's turn. Contents that hold one are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from components.errors import InputError

if TYPE_CHECKING:
    from components.data.rows import Message, Row

__all__ = ["Encoded", "check_control_tokens", "control_token", "encode", "prompt_ids", "rendered_ids", "special_ids"]

# one pattern a tokenizer: listing its added tokens takes longer than looking through a row
_patterns: WeakKeyDictionary[Any, re.Pattern[str]] = WeakKeyDictionary()


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
        InputError: The tokenizer has no chat template, the template refuses the turns, or a content holds a special
            token.
    """
    return rendered_ids(tokenizer, messages, add_generation_prompt=True)


def encode(tokenizer: Any, messages: Sequence[Message], *, prompt_loss_weight: float = 0.0) -> Encoded:
    """Render a conversation and weigh every token.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The turns; every assistant turn is a response that is trained.
        prompt_loss_weight: Weight of the tokens that no assistant wrote, 0 to 1.

    Returns:
        Token ids and weights. White space that the template puts after an assistant's turn end has the prompt's weight.

    Raises:
        InputError: No chat template, a content that holds a special token, or a template that renders a turn
            differently once others follow, so that what was said by whom can't be told apart.
    """
    input_ids = rendered_ids(tokenizer, messages, add_generation_prompt=False)
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


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of a tokenizer's special tokens, also of those that have no name such as eos.

    A turn end needn't be one of the named: with eos <|endoftext|> it is <|im_end|> all the same.
    """
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {number for number, token in added.items() if token.special}


def control_token(tokenizer: Any, messages: Sequence[Message]) -> tuple[int, str] | None:
    """Find a special token that a content spells out.

    Args:
        tokenizer: The tokenizer that would make a real one of it.
        messages: The turns.

    Returns:
        The message's number, from 1, and the token; None where there is none.
    """
    pattern = _patterns.get(tokenizer)
    if pattern is None:
        tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        longest_first = sorted(tokens | set(tokenizer.all_special_tokens), key=len, reverse=True)
        # with no special tokens at all, a pattern that matches nothing
        pattern = re.compile("|".join(map(re.escape, filter(None, longest_first))) or r"(?!)")
        _patterns[tokenizer] = pattern
    for number, message in enumerate(messages, start=1):
        found = pattern.search(message.content)
        if found is not None:
            return number, found.group()
    return None


def check_control_tokens(tokenizer: Any, rows: Sequence[Row], path: Path) -> None:
    """Refuse rows whose text would turn into special tokens.

    Args:
        tokenizer: The base's tokenizer.
        rows: Rows of one file.
        path: The file, for the message.

    Raises:
        InputError: A content holds a special token; names file, line and token.
    """
    for row in rows:
        found = control_token(tokenizer, row.messages)
        if found is not None:
            raise _control_token_error(found, f"{path}, line {row.line}: ")


def _control_token_error(found: tuple[int, str], place: str = "") -> InputError:
    number, token = found
    return InputError(
        f"{place}the content of message {number} holds {token}, a special token of the tokenizer",
        allowed="text without the tokenizer's special tokens: they mark where turns begin and end",
        next_step="take it out of the text, or write it in another way",
    )


def _prefix(tokenizer: Any, messages: Sequence[Message], whole: list[int], *, add_generation_prompt: bool) -> list[int]:
    ids = rendered_ids(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    if whole[: len(ids)] != ids:
        raise InputError(
            "the chat template renders a turn differently once later turns follow it",
            allowed="a template in which the rendering of the first turns is a prefix of the whole",
            next_step="give a chat template with that property in the base model's folder",
        )
    return ids


def _after_turn_end(tokenizer: Any, ids: list[int], start: int, end: int) -> int:
    """Return the place just behind the turn-end token, leaving out white space that the template adds behind it."""
    special = special_ids(tokenizer)
    place = end
    while place > start and ids[place - 1] not in special:
        place -= 1
    return place if place > start else end


def rendered_ids(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> list[int]:
    """Return the tokens of turns as the template renders them.

    Raises:
        InputError: No chat template, one that refuses the turns, or a content that holds a special token.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the tokenizer has no chat template",
            allowed="a base whose tokenizer carries one (chat_template.jinja, or in tokenizer_config.json)",
            next_step="choose an instruction-tuned base, or add a chat template to its folder",
        )
    spelt_out = control_token(tokenizer, messages)
    if spelt_out is not None:
        raise _control_token_error(spelt_out)
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
