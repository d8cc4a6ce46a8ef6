"""Whether a low-rank adapter fits a base, told from the shapes in their headers. At an import, before torch is needed.

Shapes can't tell a base from another of the same size: the binding by fingerprint can, where the adapter brings one.
"""

from __future__ import annotations

from collections.abc import Mapping

from components.errors import InputError

__all__ = ["check_fits"]

PREFIX = "base_model.model."
# what peft names the two factors of a linear layer, and of an embedding, whose first factor stands transposed
FACTORS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
Shape = tuple[int, ...]


def check_fits(adapter: Mapping[str, Shape], base: Mapping[str, Shape]) -> int:
    """Hold an adapter's low-rank factors against the weights that they are said to change.

    Args:
        adapter: Shape of each of the adapter's tensors by name, as peft writes them: A is (rank, in), B (out, rank).
        base: Shape of each of the base's tensors by name.

    Returns:
        How many pairs of factors were held against a weight; 0 where the adapter has none, such as a soft prompt.

    Raises:
        InputError: A factor without its other, factors of different ranks, a product that hasn't the weight's shape,
            or a layer that the base doesn't have.
    """
    pairs: dict[str, tuple[Shape, Shape]] = {}
    for name, first in adapter.items():
        for one, other in FACTORS:
            if name.endswith(one):
                module = name.removesuffix(one)
                second = adapter.get(module + other)
                if second is None or len(first) != 2 or len(second) != 2 or second[1] != first[0]:
                    raise InputError(
                        f"the adapter's factors of {module} don't make a product: {first} and {second}",
                        allowed="(rank, in) and (out, rank)",
                        next_step="fetch the adapter again",
                    )
                pairs[module.removeprefix(PREFIX)] = (first, second)
    held = 0
    for module, (first, second) in pairs.items():
        weight = base.get(f"{module}.weight")
        if weight is None and module.endswith("lm_head"):
            # a head that is tied to the embedding is not stored
            weight = next((shape for name, shape in base.items() if name.endswith("embed_tokens.weight")), None)
        if weight is None and not any(name.startswith(f"{module.replace('.base_layer', '')}.") for name in base):
            raise InputError(
                f"the adapter changes {module}, which the base doesn't have, and {len(pairs) - 1} more layers",
                allowed="the base that the adapter was trained on",
                next_step="name that base with --base, after importing it where it isn't registered",
            )
        if weight is None:
            continue  # a layer whose weights are stored under other names, as experts are
        held += 1
        # some classes keep a layer's weight transposed
        if sorted(weight) != sorted((second[0], first[1])):
            raise InputError(
                f"the adapter was made for another base: its layer {module} is {second[0]} x {first[1]}, "
                f"the base's weight is {' x '.join(map(str, weight))}",
                allowed="the base that the adapter was trained on",
                next_step="name that base with --base, after importing it where it isn't registered",
            )
    return held
