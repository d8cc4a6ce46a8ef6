from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

import deploy.engines.torch_engine as torch_engine
from components.data.chat import prompt_ids
from components.data.rows import Message
from components.evaluation.generation import generate_ids, stop_ids
from deploy.engines.engine import EngineFailureError, EngineNotReadyError, Generation
from deploy.engines.torch_engine import TorchEngine


async def read(engine: TorchEngine, request: Generation) -> tuple[str, int, str | None]:
    text, last = "", None
    async for delta in engine.submit(request):
        text, last = text + delta.text, delta
    assert last is not None
    return text, last.tokens, last.finish_reason


def read_all(engine: TorchEngine, requests: Sequence[Generation]) -> list[tuple[str, int, str | None]]:
    async def together() -> list[tuple[str, int, str | None]]:
        return list(await asyncio.gather(*(read(engine, request) for request in requests)))

    return asyncio.run(asyncio.wait_for(together(), 120))


@pytest.fixture(scope="module")
def prompts(loaded: Any) -> list[tuple[int, ...]]:
    questions = ["age", "How many singers?", "SELECT name FROM stadium " * 9, "x", "What is the oldest?", "1 2 3", "no"]
    return [tuple(prompt_ids(loaded[1], [Message("user", question)])) for question in questions]


def test_batched_answers_are_those_of_each_prompt_alone(
    engine: TorchEngine, loaded: Any, prompts: list[tuple[int, ...]]
) -> None:
    model, tokenizer = loaded
    lengths = [30, 3, 17, 1, 25, 9, 40]
    expected = []
    for prompt, length in zip(prompts, lengths, strict=True):
        ids, _ = generate_ids(model, [prompt], max_new_tokens=length, stops=stop_ids(model, tokenizer))[0]
        expected.append((tokenizer.decode(ids, skip_special_tokens=True), len(ids)))
    # seven prompts of different lengths through four slots: prompts join and leave a running batch
    found = read_all(engine, [Generation(p, n) for p, n in zip(prompts, lengths, strict=True)])
    assert [(text, tokens) for text, tokens, _ in found] == expected
    assert len({text for text, _ in expected}) > 4


def test_prompt_read_in_pieces_gives_the_same_answer(
    engine: TorchEngine, prompts: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Generation(prompts[2], 12)
    whole = read_all(engine, [request])
    monkeypatch.setattr(torch_engine, "PREFILL_TOKENS", 7)
    assert read_all(engine, [request]) == whole


def test_sampled_answer_depends_on_its_seed_alone(engine: TorchEngine, prompts: list[tuple[int, ...]]) -> None:
    request = Generation(prompts[1], 20, temperature=1.5, top_p=0.9, seed=11)
    alone = read_all(engine, [request])[0]
    others = [Generation(prompts[2], 30, temperature=1.0, seed=5), Generation(prompts[3], 30)]
    assert read_all(engine, [*others, request])[2] == alone
    unseeded = {read_all(engine, [Generation(prompts[1], 20, temperature=1.5)])[0][0] for _ in range(4)}
    assert len(unseeded) > 1


def test_turn_end_finishes_an_answer_with_stop(loaded: Any, prompts: list[tuple[int, ...]]) -> None:
    engine = TorchEngine(lambda: loaded)
    engine.start()
    engine.wait_until_loaded()
    ids = asyncio.run(_ids(engine, prompts[1]))
    engine._stops = frozenset({ids[4]})
    text, tokens, reason = read_all(engine, [Generation(prompts[1], 20)])[0]
    engine.close()
    assert (tokens, reason) == (ids.index(ids[4]) + 1, "stop")
    assert text == loaded[1].decode(ids[:tokens], skip_special_tokens=True)


async def _ids(engine: TorchEngine, prompt: tuple[int, ...]) -> list[int]:
    answer = engine.submit(Generation(prompt, 8))
    async for _ in answer:
        pass
    assert answer.job is not None
    return answer.job.generated


def test_an_answer_counts_as_running_from_its_first_token_on(
    engine: TorchEngine, prompts: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    advance = engine._advance

    def watched(job: Any, logits: Any) -> bool:
        over = advance(job, logits)
        seen.append(engine.status().running)
        return over

    monkeypatch.setattr(engine, "_advance", watched)
    read_all(engine, [Generation(prompts[1], 4)])
    assert seen[:3] == [1, 1, 1]  # the answer is out before the watcher has seen its last token


def test_closing_an_answer_frees_its_slot(engine: TorchEngine, prompts: list[tuple[int, ...]]) -> None:
    async def leave() -> None:
        answer = engine.submit(Generation(prompts[1], 900, temperature=2.0, seed=2))
        await anext(answer)
        assert engine.status().running == 1
        await answer.aclose()
        for _ in range(200):
            if engine.status().running == 0:
                return
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert engine.status().running == 0


def test_failing_step_fails_its_requests_and_not_the_next_ones(
    loaded: Any, prompts: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    engine = TorchEngine(lambda: loaded)
    engine.start()
    engine.wait_until_loaded()
    decode = engine._forward.decode

    def broken(*_arguments: Any) -> Any:
        engine._forward.decode = decode
        raise MemoryError

    engine._forward.decode = broken
    with pytest.raises(EngineFailureError, match="MemoryError"):
        read_all(engine, [Generation(prompts[1], 10)])
    assert read_all(engine, [Generation(prompts[1], 10)])[0][1] == 10
    engine.close()


def test_answer_that_can_not_be_continued_fails_alone(
    engine: TorchEngine,
    prompts: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    push = torch_engine.TextStream.push

    def broken(stream: Any, token: int) -> str:
        if stream._stop and len(stream._ids) >= 3:
            raise UnicodeError
        return push(stream, token)

    alone = read_all(engine, [Generation(prompts[1], 20)])[0]
    monkeypatch.setattr(torch_engine.TextStream, "push", broken)

    async def both() -> list[Any]:
        requests = [Generation(prompts[2], 20, stop=("never",)), Generation(prompts[1], 20)]
        return await asyncio.gather(*(read(engine, request) for request in requests), return_exceptions=True)

    bad, good = asyncio.run(asyncio.wait_for(both(), 60))
    assert isinstance(bad, EngineFailureError)
    assert "UnicodeError" in str(bad)
    assert good == alone
    assert engine.status().state == "ready"
    # the last token is out a moment before its slot is free
    deadline = time.monotonic() + 10
    while engine.status().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.status().running == 0


def test_engine_that_breaks_down_says_so_and_fails_what_it_holds(
    loaded: Any, prompts: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    engine = TorchEngine(lambda: loaded, slots=1)
    engine.start()
    engine.wait_until_loaded()

    def broken(_slot: int) -> None:
        raise IndexError

    engine._cache.release = broken
    engine._empty_cache = lambda: engine._cache

    async def ask() -> list[Any]:
        requests = [Generation(prompts[1], 900, temperature=2.0, seed=2), Generation(prompts[3], 900)]
        first, second = (engine.submit(request) for request in requests)
        await anext(first)
        await first.aclose()  # its slot can't be freed
        return await asyncio.gather(anext(second), return_exceptions=True)

    (failure,) = asyncio.run(asyncio.wait_for(ask(), 60))
    assert isinstance(failure, EngineFailureError)
    status = engine.status()
    assert (status.state, status.running, status.waiting) == ("failed", 0, 0)
    assert "IndexError" in status.reason
    with pytest.raises(EngineNotReadyError, match="IndexError"):
        read_all(engine, [Generation(prompts[1], 1)])
    engine.close()


def test_request_that_arrives_while_the_engine_closes_is_failed(loaded: Any, prompts: list[tuple[int, ...]]) -> None:
    engine = TorchEngine(lambda: loaded)
    engine.start()
    engine.wait_until_loaded()
    require_ready = engine._require_ready

    def slow() -> None:
        require_ready()
        engine._closing = True
        assert engine._worker is not None
        # time enough for a worker that doesn't wait for this request to be accepted or refused
        engine._worker.join(1)

    async def ask() -> None:
        running = engine.submit(Generation(prompts[1], 900, temperature=2.0, seed=2))
        await anext(running)
        engine._require_ready = slow  # type: ignore[method-assign]
        await anext(engine.submit(Generation(prompts[1], 1)))

    with pytest.raises(EngineFailureError, match="stopping"):
        asyncio.run(asyncio.wait_for(ask(), 30))
    engine.close()


def test_logits_that_are_not_finite_fail_the_request(loaded: Any, prompts: list[tuple[int, ...]]) -> None:
    engine = TorchEngine(lambda: loaded)
    engine.start()
    engine.wait_until_loaded()
    decode = engine._forward.decode
    engine._forward.decode = lambda *arguments: decode(*arguments) * float("nan")
    with pytest.raises(EngineFailureError, match="not finite"):
        read_all(engine, [Generation(prompts[1], 10)])
    engine.close()


def test_refused_model_is_reported_and_nothing_is_accepted() -> None:
    def load() -> Any:
        raise EngineFailureError("no such weights")

    engine = TorchEngine(load)
    engine.start()
    status = engine.wait_until_loaded()
    assert (status.state, status.reason) == ("failed", "no such weights")

    async def ask() -> None:
        engine.submit(Generation((1,), 1))

    with pytest.raises(EngineNotReadyError, match="no such weights"):
        asyncio.run(ask())
    engine.close()


def test_closing_the_engine_fails_what_runs(loaded: Any, prompts: list[tuple[int, ...]]) -> None:
    engine = TorchEngine(lambda: loaded)
    engine.start()
    engine.wait_until_loaded()

    async def ask() -> None:
        answer = engine.submit(Generation(prompts[1], 900, temperature=2.0, seed=2))
        await anext(answer)
        await asyncio.to_thread(engine.close)
        async for _ in answer:
            pass

    with pytest.raises(EngineFailureError, match="stopping"):
        asyncio.run(ask())
    assert engine.status().state == "closed"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_types", ["sliding_attention", "full_attention"]),
        ("sliding_window", 64),
        ("_attn_implementation", "flash_attention_2"),  # takes no additive mask
    ],
)
def test_model_whose_attention_the_caches_do_not_fit_is_refused(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    monkeypatch.setattr(
        loaded[0].config, {"_attn_implementation": "_attn_implementation_internal"}.get(key, key), value, raising=False
    )
    engine = TorchEngine(lambda: loaded)
    engine.start()
    status = engine.wait_until_loaded()
    assert status.state == "failed"
    assert "sliding" in status.reason
    engine.close()
