from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.decision.base_facts import BaseFacts, read_base_facts
from components.errors import InputError


def facts(folder: Path, tmp_path: Path, card: str | None = None, **config: Any) -> BaseFacts:
    target = tmp_path / "base"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    document = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**document, **config}))
    if card is not None:
        (target / "README.md").write_text(card)
    return read_base_facts(target)


def test_parameters_width_and_layers_are_read_without_loading_the_base(tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    found = read_base_facts(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.hidden_size == model.config.hidden_size
    assert found.has_query_and_value
    assert found.final_learning_rate is None


@pytest.mark.parametrize(
    ("card", "rate"),
    [
        ("---\nfinal_learning_rate: 3e-5\n---\n# A model\n", 3e-5),
        ("| min_lr | 4.2e-05 |", 4.2e-5),
        ("It ended with a final learning rate of 3e-5.", 3e-5),
        ("The learning rate warms up, then is decayed with a cosine to 1.5e-5.\n", 1.5e-5),
        ("**Minimum learning rate**: 0.00003", 3e-5),
        ("We used a learning rate of 3e-4 and a batch of 4M tokens.", None),
        ("The final learning rate is 0.0 after annealing.", None),
        ("The learning rate is decayed to 0.1 of its peak.", None),
        ("The final learning rate: 1.2.3e-4-5 (sic)", None),
    ],
)
def test_final_rate_of_pretraining_is_found_in_the_card_where_it_is_named(
    tiny_folder: Path, tmp_path: Path, card: str, rate: float | None
) -> None:
    found = facts(tiny_folder, tmp_path, card)
    assert found.final_learning_rate == rate
    assert found.final_learning_rate_source.startswith("README.md") == (rate is not None)


def test_config_names_the_rate_before_the_card_does(tiny_folder: Path, tmp_path: Path) -> None:
    found = facts(tiny_folder, tmp_path, "final_learning_rate: 3e-5", min_lr=2e-5)
    assert (found.final_learning_rate, found.final_learning_rate_source) == (2e-5, "config.json, min_lr")
    # a switch, a word or a rate that no training has is no rate
    for value in (True, "2e-5", 3, 0):
        assert facts(tiny_folder, tmp_path, min_lr=value).final_learning_rate is None


def test_folder_without_config_or_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        read_base_facts(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no weights"):
        read_base_facts(tmp_path)
