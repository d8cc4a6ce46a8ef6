"""Tokens to text as they come: whole characters only, and nothing past a stop text. Used by engines that stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["TextStream"]

REPLACEMENT = "�"


class TextStream:
    """Turn one answer's tokens into pieces of text whose concatenation is the answer.

    A character may span tokens, and a tokenizer may render a token differently after another one, so each piece is
    the difference between two decodings that begin at a token whose text is already out. What could be the beginning
    of a stop text is held back until it is known not to be.

    Args:
        tokenizer: A tokenizer with `decode`.
        stop: Texts that end the answer; the earliest one in the answer counts.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._begin = 0  # decoding starts here, for context
        self._done = 0  # tokens before this have their text in `_held` or out
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take one more token and return the text that is now certain."""
        self._ids.append(token)
        known = self._decode(self._begin, self._done)
        whole = self._decode(self._begin, len(self._ids))
        if len(whole) <= len(known) or whole.endswith(REPLACEMENT):
            return ""
        self._begin, self._done = self._done, len(self._ids)
        return self._release(whole[len(known) :], last=False)

    def finish(self) -> str:
        """Return what was held back: nothing more comes."""
        if self.stopped:
            return ""
        known = self._decode(self._begin, self._done)
        whole = self._decode(self._begin, len(self._ids))
        self._begin = self._done = len(self._ids)
        return self._release(whole[len(known) :], last=True)

    def _decode(self, start: int, end: int) -> str:
        text: str = self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)
        return text

    def _release(self, text: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        self._held += text
        places = [place for place in map(self._held.find, self._stop) if place >= 0]
        if places:
            self.stopped = True
            certain, self._held = self._held[: min(places)], ""
            return certain
        keep = 0 if last else self._possible_beginning()
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain

    def _possible_beginning(self) -> int:
        """Return the length of the longest end of the held text that some stop text begins with."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
