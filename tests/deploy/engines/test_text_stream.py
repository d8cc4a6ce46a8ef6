from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.engines.text_stream import TextStream

TEXTS = ["SELECT count(*) FROM singer", "naïve café — 東京 🎉🏳️‍🌈 ok", "a\n\nb  c", "é", ""]


def stream(tokenizer: Any, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    text = TextStream(tokenizer, stop)
    pieces = []
    for token in ids:
        pieces.append(text.push(token))
        if text.stopped:
            break
    pieces.append(text.finish())
    return pieces, text


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_make_up_the_text_and_hold_whole_characters(loaded: Any, text: str) -> None:
    tokenizer = loaded[1]
    pieces, _ = stream(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    assert "".join(pieces) == text
    assert not any("�" in piece for piece in pieces)


def test_special_tokens_leave_no_text(loaded: Any) -> None:
    tokenizer = loaded[1]
    pieces, _ = stream(tokenizer, tokenizer("ab<|im_end|>", add_special_tokens=False)["input_ids"])
    assert "".join(pieces) == "ab"


def test_bytes_that_never_become_a_character_come_out_at_the_end(loaded: Any) -> None:
    tokenizer = loaded[1]
    ids = tokenizer("🎉", add_special_tokens=False)["input_ids"]
    pieces, _ = stream(tokenizer, ids[:-1])
    assert set("".join(pieces[:-1])) == set()
    assert set(pieces[-1]) == {"�"}


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="abé東 \n", max_size=30),
    stop=st.lists(st.text(alphabet="abé東 \n", min_size=1, max_size=4), max_size=3),
)
def test_streamed_text_is_the_whole_text_up_to_the_earliest_stop(loaded: Any, text: str, stop: list[str]) -> None:
    tokenizer = loaded[1]
    pieces, stream_ = stream(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], tuple(stop))
    places = [text.index(one) for one in stop if one in text]
    assert stream_.stopped == bool(places)
    expected = text[: min(places)] if places else text
    found = "".join(pieces)
    # a stop text that ends earlier may win over one that begins earlier, as text arrives token by token
    assert text.startswith(found)
    assert found == expected or (places and not any(one in found for one in stop))


def test_possible_beginning_of_a_stop_text_is_held_back(loaded: Any) -> None:
    tokenizer = loaded[1]
    text = TextStream(tokenizer, ("xyz",))
    assert "".join(text.push(token) for token in tokenizer("ax", add_special_tokens=False)["input_ids"]) == "a"
    assert "".join(text.push(token) for token in tokenizer("yb", add_special_tokens=False)["input_ids"]) == "xyb"
