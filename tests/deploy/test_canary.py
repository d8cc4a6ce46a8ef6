from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

import deploy.canary as canaries
from components.data.chat import prompt_ids
from components.data.rows import Message
from components.errors import InputError
from components.finetuning.methods import find_method
from components.finetuning.prompt_tuning import SoftPromptSettings
from deploy.canary import PROBES, Canary, CanaryFailedError, check_canary, record_canary
from deploy.engines.torch_engine import TorchEngine

PROBE = (Message("user", "How many singers are there?"),)


@pytest.fixture(scope="module")
def canary(loaded: Any) -> Canary:
    return record_canary(*loaded, [PROBE])


def engine_for(canary: Canary, loaded: Any) -> TorchEngine:
    engine = TorchEngine(
        lambda: loaded,
        accept=lambda made: check_canary(
            canary, lambda turns: prompt_ids(made.tokenizer, turns), made.continue_greedily
        ),
    )
    engine.start()
    engine.wait_until_loaded()
    engine.close()
    return engine


def test_engine_that_answers_as_recorded_is_ready(canary: Canary, loaded: Any) -> None:
    found: dict[str, Any] = {}
    engine = TorchEngine(
        lambda: loaded,
        accept=lambda made: (
            found.update(check_canary(canary, lambda turns: prompt_ids(made.tokenizer, turns), made.continue_greedily))
            or found
        ),
    )
    engine.start()
    status = engine.wait_until_loaded()
    engine.close()
    assert status.state == "ready"
    assert status.canary == {"passed": True, "compared": canary.compared, "text": canary.text}
    assert canary.compared >= 4


def test_differing_answer_keeps_the_engine_from_becoming_ready(canary: Canary, loaded: Any) -> None:
    tokens = (*canary.tokens[:2], canary.tokens[2] + 1, *canary.tokens[3:])
    status = engine_for(replace(canary, tokens=tokens), loaded).status()
    assert status.state == "failed"
    assert f"token 3 of {canary.compared}" in status.reason
    assert status.canary["expected"] != status.canary["given"]


def test_difference_behind_a_near_tie_proves_nothing(canary: Canary, loaded: Any) -> None:
    tokens = (*canary.tokens[:2], canary.tokens[2] + 1, *canary.tokens[3:])
    assert engine_for(replace(canary, tokens=tokens, compared=2), loaded).status().state == "closed"


def test_recording_of_which_nothing_can_be_compared_does_not_pass(canary: Canary, loaded: Any) -> None:
    status = engine_for(replace(canary, compared=0), loaded).status()
    assert status.state == "failed"
    assert "proves nothing" in status.reason
    assert status.canary["passed"] is False


def first_margin(loaded: Any, probe: Sequence[Message]) -> float:
    """How far the likeliest first token of an answer is ahead of the next."""
    import torch

    with torch.inference_mode():
        logits = loaded[0](input_ids=torch.tensor([prompt_ids(loaded[1], probe)])).logits[0, -1]
    best, second = torch.topk(logits.float(), 2).values.tolist()
    return float(best - second)


def test_probe_that_begins_with_a_near_tie_gives_way_to_the_next(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = ("How many singers are there?", "age", "SELECT name", "x", "What is the oldest?")
    probes = sorted(((Message("user", text),) for text in questions), key=lambda probe: first_margin(loaded, probe))
    nearest, farthest = probes[0], probes[-1]
    between = (first_margin(loaded, nearest) + first_margin(loaded, farthest)) / 2
    monkeypatch.setitem(canaries.TIE_MARGIN, "float32", between)
    found = record_canary(*loaded, [nearest, farthest])
    assert found.messages == farthest
    assert found.compared >= 1
    with pytest.raises(CanaryFailedError, match="near tie"):
        record_canary(*loaded, [nearest])


def test_quantized_weights_have_the_margin_of_few_bits(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    margin = first_margin(loaded, PROBE)
    monkeypatch.setitem(canaries.TIE_MARGIN, "float32", margin / 2)
    monkeypatch.setattr(canaries, "QUANTIZED_TIE_MARGIN", margin * 2)
    assert record_canary(*loaded, [PROBE]).compared >= 1
    with pytest.raises(CanaryFailedError, match="near tie"):
        record_canary(*loaded, [PROBE], quantization="nf4")


def test_another_template_is_noticed_by_its_prompt(canary: Canary, loaded: Any) -> None:
    status = engine_for(replace(canary, prompt=canary.prompt[1:]), loaded).status()
    assert status.state == "failed"
    assert "chat template" in status.reason


def test_weights_with_nan_are_neither_recorded_nor_served(canary: Canary, loaded: Any) -> None:
    import copy

    import torch

    model = copy.deepcopy(loaded[0])
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(CanaryFailedError, match="not finite"):
        record_canary(model, loaded[1], [PROBE])
    status = engine_for(canary, (model, loaded[1])).status()
    assert status.state == "failed"
    assert "not finite" in status.reason


@pytest.mark.parametrize("method", ["prefix_tuning", "prompt_tuning", "p_tuning"])
def test_an_answer_behind_a_soft_prompt_is_recorded_as_it_is_served(loaded: Any, method: str) -> None:
    model, tokenizer = loaded
    settings = SoftPromptSettings(4)
    prompted = find_method(method, settings).attach(copy.deepcopy(model), settings).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in prompted.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    recorded = record_canary(prompted, tokenizer, [PROBE, *PROBES])
    # the same token again and again would be answered by a faulty recording, too
    assert len(set(recorded.tokens[: recorded.compared])) > 1
    # closed behind the check, which would have left it failed
    assert engine_for(recorded, (prompted, tokenizer)).status().state == "closed"


def test_recording_survives_json(canary: Canary) -> None:
    import json

    assert Canary.from_dict(json.loads(json.dumps(canary.to_dict()))) == canary
    with pytest.raises(InputError, match="canary"):
        Canary.from_dict({"messages": []})
