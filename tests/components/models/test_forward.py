"""Logits are those of the model's own class, whatever it puts behind its head; what can't be reproduced is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from components.data.packing import collate, pack_branches
from components.errors import InputError
from components.evaluation.generation import generate_ids
from components.finetuning.loss import forward_loss
from components.models.forward import check_logits, hidden_states, logits, token_log_probs

SHAPE: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def llama(**changes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SHAPE, **changes))


def granite() -> Any:
    from transformers import GraniteConfig, GraniteForCausalLM

    return GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0, initializer_range=0.4))


def gemma() -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, head_dim=8, final_logit_softcapping=2.0, initializer_range=0.4))


def cohere() -> Any:
    from transformers import CohereConfig, CohereForCausalLM

    return CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.25, initializer_range=0.4))


def phi() -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    model = PhiForCausalLM(PhiConfig(**SHAPE, initializer_range=0.4))
    assert model.lm_head.bias is not None
    torch.nn.init.normal_(model.lm_head.bias)
    return model


def made(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
    # as load_model asks for
    model.set_attn_implementation("sdpa")
    return model


IDS = [1, 7, 9, 30, 41, 5, 12, 58]


@pytest.mark.parametrize("build", [llama, granite, gemma, cohere, phi])
def test_log_probabilities_and_loss_are_those_of_the_class(build: Callable[[], Any]) -> None:
    model = made(build)
    own = model(input_ids=torch.tensor([IDS])).logits[0, :-1].float().log_softmax(-1)
    picked = own.gather(1, torch.tensor(IDS[1:])[:, None])[:, 0]
    batch = collate([pack_branches(IDS[:1], [(IDS[1:], [1.0] * 7)])], 0)
    with torch.no_grad():
        torch.testing.assert_close(token_log_probs(model, batch)[0, :-1], picked, rtol=1e-4, atol=1e-5)
        assert float(forward_loss(model, batch, 7.0)) == pytest.approx(-float(picked.mean()), rel=1e-4)
    check_logits(model)


@pytest.mark.parametrize("build", [llama, granite, cohere, phi])
def test_generated_tokens_are_those_of_the_class(build: Callable[[], Any]) -> None:
    model = made(build)
    ids = torch.tensor([IDS])
    own = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=5, eos_token_id=None)
    assert generate_ids(model, [IDS], max_new_tokens=5, stops=frozenset())[0][0] == own[0, len(IDS) :].tolist()


def test_a_plain_head_gives_the_same_bits() -> None:
    model = made(llama)
    batch = collate([pack_branches(IDS[:1], [(IDS[1:], [1.0] * 7)])], 0)
    with torch.no_grad():
        states = hidden_states(model, batch)
        assert torch.equal(logits(model, states), states @ model.lm_head.weight.T)


def test_a_class_that_does_more_to_its_logits_is_refused() -> None:
    from transformers import LlamaForCausalLM

    class Doubled(LlamaForCausalLM):
        def forward(self, *arguments: Any, **named: Any) -> Any:
            output = super().forward(*arguments, **named)
            output.logits = output.logits * 2
            return output

    model = made(lambda: Doubled(llama(initializer_range=0.4).config))
    with pytest.raises(InputError, match=r"logits of Doubled can't be computed .* differ by"):
        check_logits(model)
    assert not model.training


def test_a_model_without_a_head_is_refused() -> None:
    from transformers import LlamaModel

    with pytest.raises(InputError, match="no output embeddings"):
        check_logits(LlamaModel(llama().config))
