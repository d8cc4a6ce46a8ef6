from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from components.data.chat import prompt_ids
from components.data.rows import Message
from components.errors import InputError
from components.evaluation.generation import generate, generate_ids, stop_ids
from components.finetuning.lora import LoraSettings, attach
from components.models.load import load_model
from components.models.rope import RopeScaling
from components.models.tiny import make_tiny


def one_by_one(model: Any, prompt: list[int], max_new_tokens: int, stops: frozenset[int]) -> list[int]:
    import torch

    ids = torch.tensor([prompt])
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(stops),
        pad_token_id=0,
    )
    return list(output[0, len(prompt) :].tolist())


def grouped_prompts(seed: int = 0) -> list[list[int]]:
    """Three groups with a shared prefix, nested groups, a group of one, a lone short prompt and two equal ones."""
    pick = random.Random(seed)

    def some(count: int) -> list[int]:
        return [pick.randrange(3, 390) for _ in range(count)]

    instruction = some(40)
    prompts = []
    for size, questions in ((60, 5), (90, 3), (30, 1)):
        schema = instruction + some(size)
        prompts += [schema + some(pick.randrange(1, 25)) for _ in range(questions)]
    prompts += [some(2), some(1), prompts[0]]
    pick.shuffle(prompts)
    return prompts


def stops_that_occur(model: Any, prompts: list[list[int]]) -> frozenset[int]:
    """Tokens that end some answers early and others not at all: a random model never ends its turn by itself."""
    answers = [one_by_one(model, prompt, 20, frozenset({399})) for prompt in prompts]
    return frozenset({answers[0][4], answers[1][9]})


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_tokens_equal_plain_generation_for_every_length_and_group(tiny_model: Any, batch_size: int) -> None:
    prompts = grouped_prompts()
    stops = stops_that_occur(tiny_model, prompts)
    expected = [one_by_one(tiny_model, prompt, 24, stops) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 2, "the answers must end at different places"
    found = generate_ids(tiny_model, prompts, max_new_tokens=24, stops=stops, batch_size=batch_size)
    assert [ids for ids, _ in found] == expected


def test_tokens_equal_plain_generation_with_an_adapter(tiny_model: Any) -> None:
    import torch

    prompts = grouped_prompts(seed=1)
    bare = [ids for ids, _ in generate_ids(tiny_model, prompts, max_new_tokens=16, stops=frozenset({399}))]
    tuned = attach(tiny_model, LoraSettings(rank=4, alpha=16))
    torch.manual_seed(0)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    tuned.eval()
    expected = [one_by_one(tuned, prompt, 16, frozenset({399})) for prompt in prompts]
    found = [ids for ids, _ in generate_ids(tuned, prompts, max_new_tokens=16, stops=frozenset({399}), batch_size=4)]
    assert found == expected
    assert found != bare


def test_eager_attention_and_fallback_give_the_same_tokens(tiny_model: Any) -> None:
    prompts = grouped_prompts(seed=2)
    stops = frozenset({399})
    slots = [ids for ids, _ in generate_ids(tiny_model, prompts, max_new_tokens=12, stops=stops)]
    tiny_model.set_attn_implementation("eager")
    assert [ids for ids, _ in generate_ids(tiny_model, prompts, max_new_tokens=12, stops=stops)] == slots
    tiny_model.config.sliding_window = 4096
    assert [ids for ids, _ in generate_ids(tiny_model, prompts, max_new_tokens=12, stops=stops)] == slots


def test_messages_give_text_counts_and_progress(tiny_model: Any, tiny_tokenizer: Any) -> None:
    prompts = [
        (Message("system", "singer(id, name, country, age) " * 6), Message("user", question))
        for question in ("How many singers are there?", "What is the name of the oldest student?", "yes")
    ]
    seen: list[tuple[int, int]] = []
    tiny_model.train()
    found = generate(
        tiny_model, tiny_tokenizer, prompts, max_new_tokens=7, progress=lambda done, total: seen.append((done, total))
    )
    assert tiny_model.training, "the model comes back in the mode it came in"
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for prompt, completion in zip(prompts, found, strict=True):
        ids = prompt_ids(tiny_tokenizer, prompt)
        assert completion.prompt_tokens == len(ids)
        assert 1 <= completion.completion_tokens <= 7
        assert completion.seconds > 0
        answer = one_by_one(tiny_model.eval(), ids, 7, stop_ids(tiny_model, tiny_tokenizer))
        assert completion.text == tiny_tokenizer.decode(answer, skip_special_tokens=True)


def test_turn_end_of_the_template_stops_even_where_eos_is_another_token(tiny_model: Any, tiny_tokenizer: Any) -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.eos_token = "<|endoftext|>"
    tiny_model.generation_config.eos_token_id = tokenizer.eos_token_id
    assert turn_end in stop_ids(tiny_model, tokenizer)


def test_no_prompts_give_no_completions(tiny_model: Any, tiny_tokenizer: Any) -> None:
    assert generate(tiny_model, tiny_tokenizer, [], max_new_tokens=5) == []


def test_prompt_beyond_the_positions_is_refused_with_its_number(tiny_model: Any) -> None:
    with pytest.raises(InputError, match=r"prompt 1 has 1020 tokens.*\n.*at most 1014 tokens"):
        generate_ids(tiny_model, [[5], [5] * 1020], max_new_tokens=10, stops=frozenset({2}))


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_prompts_past_the_original_positions_are_answered_as_one_by_one(tmp_path: Path, kind: str) -> None:
    import torch

    model = load_model(make_tiny(tmp_path / "short", seed=3, positions=64), rope_scaling=RopeScaling(kind, 4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter *= 12
    prompts = [prompt for prompt in grouped_prompts() if len(prompt) > 64]
    assert len(prompts) > 6
    stops = frozenset({399})
    found = generate_ids(model, prompts, max_new_tokens=12, stops=stops, batch_size=4)
    assert [ids for ids, _ in found] == [one_by_one(model, prompt, 12, stops) for prompt in prompts]


def test_a_cache_follows_dynamic_scaling_up_to_the_original_positions(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "short", seed=3, positions=64)
    dynamic, plain = load_model(folder, rope_scaling=RopeScaling("dynamic", 4)), load_model(folder)
    prompts = [[5, 9, 11] * 5, [7] * 50]
    asked = {"max_new_tokens": 10, "stops": frozenset({399})}
    ids = [[answer for answer, _ in generate_ids(model, prompts, **asked)] for model in (dynamic, plain)]  # type: ignore[arg-type]
    assert ids[0] == ids[1]
    with pytest.raises(InputError, match="64 positions for answers") as raised:
        generate_ids(dynamic, [[7] * 60], **asked)  # type: ignore[arg-type]
    assert "scale by yarn or linear" in str(raised.value)
    with pytest.raises(InputError, match=r"set finetune\.rope_scaling"):
        generate_ids(plain, [[7] * 60], **asked)  # type: ignore[arg-type]
