"""Passkey retrieval: is a number found again wherever it stood in a long text? Behind `tunewright long-context`.

The test of Mohtashami & Jaggi 2023 (arXiv:2305.16300, section 4.2): filler that says nothing, one sentence with a
number somewhere in it, and at the end the question for the number. Perplexity can be low without it: most tokens are
predicted from what stands nearby.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from components.data.chat import prompt_ids
from components.data.rows import Message
from components.errors import InputError
from components.evaluation.statistics import wilson
from components.models.forward import logits, text_states

__all__ = ["PasskeyPrompt", "PasskeyResult", "make_prompt", "measure_passkey", "retrieves"]

DIGITS = 5
FILLER = (
    "The river runs slowly past the old mill.",
    "A dog sleeps in the shade of the wall.",
    "Clouds drift over the hills in the afternoon.",
    "The baker opens the shop before sunrise.",
    "Somebody has left a bicycle by the gate.",
    "Leaves gather in the corners of the yard.",
    "A train whistles far away and is gone.",
    "The lamp in the hall burns all night.",
)
INSTRUCTION = "A pass key is hidden in the text below. Find it and keep it in mind; you will be asked for it."
NEEDLE = "The pass key is {key}. Keep it in mind. {key} is the pass key."
QUESTION = "What is the pass key?"
# The answer is begun for the model, so that what is tested is finding, not the form of an answer.
ANSWER = "The pass key is"


@dataclass(frozen=True)
class PasskeyPrompt:
    """One text with a number in it.

    Attributes:
        ids: Token ids up to where the number is to be said.
        key: The number's token ids.
        length: Tokens that were asked for; the text has that many, or a sentence less.
        depth: Where the number stands: 0 at the beginning, 1 at the end.
    """

    ids: tuple[int, ...]
    key: tuple[int, ...]
    length: int
    depth: float


@dataclass(frozen=True)
class PasskeyResult:
    """Prompts of one length and depth.

    Attributes:
        length: Tokens of each prompt with its answer, at most.
        depth: Where the number stood.
        found: Prompts whose number was found.
        n: Prompts.
        low: Lower end of the 95 % interval of the share.
        high: Its upper end.
    """

    length: int
    depth: float
    found: int
    n: int
    low: float
    high: float

    @property
    def accuracy(self) -> float:
        """The share of prompts whose number was found."""
        return self.found / self.n


def make_prompt(tokenizer: Any, *, length: int, depth: float, seed: int) -> PasskeyPrompt:
    """Write one prompt.

    Args:
        tokenizer: The base's, with a chat template.
        length: Tokens of prompt and answer together, at most; a sentence of filler more would be too many.
        depth: Where the number stands among the filler, from 0 to 1.
        seed: Seed of number and filler. Prompts of one seed have the same number and begin with the same filler,
            whatever their length and depth.

    Raises:
        InputError: A depth outside 0 to 1, or a length that holds no filler.
    """
    if not 0 <= depth <= 1:
        raise InputError(f"a depth of {depth:g}", allowed="0, the beginning, to 1, the end")
    dice = random.Random(f"passkey/{seed}")
    # no number begins with 0
    key = str(dice.randrange(10 ** (DIGITS - 1), 10**DIGITS))
    room = length - len(_encoded(tokenizer, [], key, 0)[0]) - len(_encoded(tokenizer, [], key, 0)[1])
    sentences: list[str] = []
    while True:
        sentence = dice.choice(FILLER)
        room -= len(tokenizer(f"{sentence} ", add_special_tokens=False)["input_ids"])
        if room < 0:
            break
        sentences.append(sentence)
    if not sentences:
        raise InputError(f"a passkey in {length} tokens", allowed="a length that leaves room for filler: 200 or more")
    while True:
        ids, answer = _encoded(tokenizer, sentences, key, round(depth * len(sentences)))
        # sentences side by side may take other tokens than alone
        if len(ids) + len(answer) <= length:
            return PasskeyPrompt(tuple(ids), tuple(answer), length, depth)
        sentences.pop()


def retrieves(model: Any, prompt: PasskeyPrompt) -> bool:
    """Tell whether greedy decoding says the number.

    It does exactly if the number's every token is the likeliest behind the prompt and the tokens before it, so that
    one pass over prompt and number decides it.

    Args:
        model: A causal language model, bare or wrapped by peft, in evaluation mode.
        prompt: The prompt.
    """
    import torch

    with torch.inference_mode():
        states = text_states(model, [*prompt.ids, *prompt.key[:-1]])
        likeliest = logits(model, states[-len(prompt.key) :]).argmax(dim=-1).tolist()
    return bool(likeliest == list(prompt.key))


def measure_passkey(
    model: Any,
    tokenizer: Any,
    *,
    lengths: Sequence[int],
    depths: Sequence[float],
    trials: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[PasskeyResult]:
    """Ask for numbers in texts of several lengths, at several depths.

    Args:
        model: A causal language model, bare or wrapped by peft; it is put into evaluation mode and back.
        tokenizer: Its tokenizer.
        lengths: Tokens of the prompts.
        depths: Where the numbers stand.
        trials: Prompts of each length and depth.
        seed: Seed of numbers and filler.
        progress: Called with (done, all) after each prompt.

    Returns:
        A result for each length and depth, in their order.

    Raises:
        InputError: Fewer than one trial, or a length or depth that can't be used.
    """
    if trials < 1:
        raise InputError(f"{trials} passkeys", allowed="1 or more of each length and depth")
    # all of them before the first pass: what can't be written is told at once
    cells = [(length, depth) for length in lengths for depth in depths]
    prompts = {
        (length, depth): [
            make_prompt(tokenizer, length=length, depth=depth, seed=seed * 10_000 + trial) for trial in range(trials)
        ]
        for length, depth in cells
    }
    results, done = [], 0
    was_training = model.training
    model.eval()
    try:
        for length, depth in cells:
            found = 0
            for prompt in prompts[length, depth]:
                found += retrieves(model, prompt)
                done += 1
                if progress is not None:
                    progress(done, len(cells) * trials)
            results.append(PasskeyResult(length, depth, found, trials, *wilson(found, trials)))
    finally:
        model.train(was_training)
    return results


def _encoded(tokenizer: Any, filler: Sequence[str], key: str, place: int) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt, with the number before the filler sentence at `place`, and those of the number."""
    text = " ".join([*filler[:place], NEEDLE.format(key=key), *filler[place:]])
    begun = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    said = tokenizer(f"{ANSWER} {key}", add_special_tokens=False)["input_ids"]
    # where the number takes tokens of the words before it along, these are part of what is to be said
    shared = next((n for n, (a, b) in enumerate(zip(begun, said, strict=False)) if a != b), len(begun))
    asked = prompt_ids(tokenizer, [Message("user", f"{INSTRUCTION}\n\n{text}\n\n{QUESTION}")])
    return [*asked, *begun[:shared]], said[shared:]
