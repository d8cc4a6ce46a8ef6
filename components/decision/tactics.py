"""Finetuning's settings by rules of thumb, each with its reason. Before the memory plan, which takes them as given.

A recipe value of 'auto' is chosen here; a value that the user set is never changed, only warned about. This stands
apart from components/finetuning, so that other words for a rule train nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.decision.situation import Situation
from components.decision.tactic_rules import AUTO, advise

__all__ = ["CHOSEN", "Tactic", "Tactics", "choose_tactics"]

# The source of a value that was chosen here, beside `recipe`, `profile NAME`, `command line` and `default`.
CHOSEN = "chosen by tactics"
# What 'auto' chooses from where rows are few, and where they are enough for every weight.
ADAPTERS = ("lora", "qlora")
ALL_METHODS = ("full", *ADAPTERS)


@dataclass(frozen=True)
class Tactic:
    """One setting.

    Attributes:
        key: Key in the recipe's finetune section.
        value: What the run uses.
        advised: What the rule would take.
        source: `chosen by tactics`, or where the recipe's value came from.
        reason: Why the rule says so.
        warning: What speaks against the value in use, or None.
    """

    key: str
    value: Any
    advised: Any
    source: str
    reason: str
    warning: str | None


@dataclass(frozen=True)
class Tactics:
    """The settings that a run uses, and the rule behind each.

    Attributes:
        methods: What the memory plan chooses from, the best quality first.
        rank: LoRA rank.
        targets: LoRA targets.
        learning_rate: Of the method that was asked about.
        epochs: Passes over the training rows.
        prompt_loss_weight: Weight of prompt tokens.
        rules: The rule behind each.
    """

    methods: tuple[str, ...]
    rank: int
    targets: str
    learning_rate: float
    epochs: float
    prompt_loss_weight: float
    rules: tuple[Tactic, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the `tactics` part of the run document: `settings` [{key, value, advised, source, reason, warning}]
        and `warnings`."""
        return {"settings": [asdict(rule) for rule in self.rules], "warnings": list(self.warnings)}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what speaks against the values in use."""
        return tuple(rule.warning for rule in self.rules if rule.warning)


def choose_tactics(situation: Situation, given: Mapping[str, Any], sources: Mapping[str, str]) -> Tactics:
    """Replace every 'auto' by what the rules choose, and hold what was set against the same rules.

    Args:
        situation: Data, base and memory.
        given: The recipe's finetune section; of it `method`, `rank`, `targets`, `learning_rate`, `effective_rows`,
            `epochs` and `prompt_loss_weight` are read.
        sources: Where each value came from, by the keys of `given`.

    Returns:
        The values in use with their reasons and warnings. Equal input gives equal output.
    """
    rules = []
    for key, found in advise(situation, given["method"], given["effective_rows"]).items():
        # the memory plan chooses between the methods that the rule leaves
        chosen = given[key] == AUTO and key != "method"
        value = found.value if chosen else given[key]
        objection = None if given[key] == AUTO else found.objection(value)
        warning = f"finetune.{key} = {_shown(value)}: {objection}" if objection else None
        rules.append(Tactic(key, value, found.value, CHOSEN if chosen else sources.get(key, ""), found.reason, warning))
    values = {rule.key: rule.value for rule in rules}
    advised = next(rule.advised for rule in rules if rule.key == "method")
    return Tactics(
        methods=ALL_METHODS if advised == AUTO else ADAPTERS,
        rank=values["rank"],
        targets=values["targets"],
        learning_rate=values["learning_rate"],
        epochs=values["epochs"],
        prompt_loss_weight=values["prompt_loss_weight"],
        rules=tuple(rules),
    )


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
