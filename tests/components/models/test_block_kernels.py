"""Compiled blocks give the numbers of plain ones, and a model is as it was once its kernels are taken away."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from components.data.packing import PackedSequence, collate, pack_branches
from components.evaluation.generation import generate_ids
from components.finetuning import lora, prompt_tuning
from components.finetuning.loss import forward_loss
from components.models.block_kernels import batch_layout, kernels_in_use
from components.models.forward import causal_model
from components.models.kernels import Kernels
from components.models.load import load_model
from components.models.tiny import make_tiny

COMPILED = Kernels(compile=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base"), layers=5)


class Compiler:
    """torch.compile's way up to the C++ compiler, whose place torch's own operators take; counts the graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        from torch._dynamo.backends.debugging import aot_eager

        self.graphs += 1
        return aot_eager(graph, inputs)


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    torch._dynamo.reset()
    yield Compiler()
    torch._dynamo.reset()


def packed(*lengths: int, prefix: int) -> PackedSequence:
    return pack_branches([3] * prefix, [(list(range(5, 5 + length)), [1.0] * length) for length in lengths])


def trained(folder: Path) -> Any:
    return lora.attach(load_model(folder), lora.LoraSettings(rank=4, targets="attention-qv", start="pissa")).train()


def loss_and_gradients(model: Any, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    loss = forward_loss(model, batch, float(batch["weights"].sum()))
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_train_as_plain_ones_do(folder: Path, compiler: Compiler, checkpointing: bool) -> None:
    model = trained(folder)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layout = batch_layout(model, COMPILED)
    batches = [collate([packed(*own, prefix=9)], 0, layout) for own in ((20, 5), (30, 11, 4), (7, 40))]
    expected = [loss_and_gradients(model, batch) for batch in batches]
    made = []
    with kernels_in_use(model, COMPILED, compiler):
        for batch, plain in zip(batches, expected, strict=True):
            for own, other in zip(loss_and_gradients(model, batch), plain, strict=True):
                torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)
            made.append(compiler.graphs)
        with torch.no_grad():
            forward_loss(model.eval(), batches[0], 1.0)
    # what was made for the first block serves all five, whatever the length; measurements make none
    assert 1 <= made[0] <= 2
    assert [*made, compiler.graphs] == [made[0]] * 4


def test_a_model_is_plain_again_afterwards(folder: Path, compiler: Compiler) -> None:
    model = trained(folder)
    inner = causal_model(model)
    before = [dict(vars(part)) for part in inner.modules()]
    with kernels_in_use(model, COMPILED, compiler):
        assert inner.config._attn_implementation != "sdpa"
        assert "forward" in vars(inner.model.layers[0])
    assert [dict(vars(part)) for part in inner.modules()] == before
    assert inner.config._attn_implementation == "sdpa"


def test_generation_within_training_takes_its_own_masks(folder: Path) -> None:
    model = load_model(folder)

    def answers() -> list[tuple[list[int], float]]:
        return generate_ids(model, [[5, 6, 7], [8, 9, 10, 11, 12]], max_new_tokens=6, stops=frozenset({2}))

    expected = answers()
    for attention in ("sdpa", "flex", "flash"):
        with kernels_in_use(model, Kernels(attention)):
            assert [ids for ids, _ in answers()] == [ids for ids, _ in expected]


def test_soft_prompts_have_a_mask(folder: Path) -> None:
    model = prompt_tuning.attach(load_model(folder), prompt_tuning.SoftPromptSettings(4))
    assert batch_layout(model, Kernels()) == "mask"
    assert batch_layout(trained(folder), Kernels()) == "rows"
    assert batch_layout(trained(folder), Kernels("flex")) == "segments"


def test_liger_is_asked_for_its_layers_alone_and_taken_out_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import liger

    asked: dict[str, Any] = {}

    def put_in(model: Any, **parts: Any) -> None:
        """Change what liger-kernel 0.8.5 changes: a function of the class's module, and methods of the norms."""
        asked.update(parts)
        sys.modules[type(model).__module__].apply_rotary_pos_emb = None  # type: ignore[attr-defined]
        model.model.norm.__dict__["forward"] = lambda states: states * 0
        model.model.norm.offset = 0.0

    package, module = types.ModuleType("liger_kernel"), types.ModuleType("liger_kernel.transformers")
    module._apply_liger_kernel_to_instance = put_in  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    monkeypatch.setattr(liger, "is_liger_kernel_available", lambda: True)
    model = trained(folder)
    inner = causal_model(model)
    norm, rotate = inner.model.norm, sys.modules[type(inner).__module__].apply_rotary_pos_emb  # type: ignore[attr-defined]
    batch = collate([packed(8, 5, prefix=4)], 0)
    before, expected = dict(vars(norm)), loss_and_gradients(model, batch)
    with kernels_in_use(model, Kernels(liger=True)):
        assert asked == {
            "rope": True, "rms_norm": True, "swiglu": True, "cross_entropy": False, "fused_linear_cross_entropy": False,
        }  # fmt: skip
        assert not norm(torch.ones(3)).any()
    assert dict(vars(norm)) == before
    assert sys.modules[type(inner).__module__].apply_rotary_pos_emb is rotate  # type: ignore[attr-defined]
    for own, other in zip(loss_and_gradients(model, batch), expected, strict=True):
        assert torch.equal(own, other)


def test_a_process_that_trains_again_and_again_compiles_each_time(folder: Path) -> None:
    graphs = []
    for rank in range(1, 11):
        model = lora.attach(load_model(folder), lora.LoraSettings(rank=rank, targets="attention-qv")).train()
        batch = collate([packed(8, 4, prefix=5)], 0, batch_layout(model, COMPILED))
        compiler = Counting()
        with kernels_in_use(model, COMPILED, compiler):
            forward_loss(model, batch, 1.0)
        graphs.append(compiler.graphs)
    # torch keeps eight of a function's graphs, and then runs it as it is
    assert min(graphs) >= 1


class Counting:
    """Run a graph as it stands; counts the graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _: Any) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward  # type: ignore[no-any-return]
