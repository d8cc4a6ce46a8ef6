"""The book's arithmetic."""

from __future__ import annotations

import pytest

from components.errors import InputError
from components.memory.formula import estimate


def test_thirteen_billion_parameters_with_adam_need_78_gb_for_gradients_and_states() -> None:
    found = estimate(13e9, 2, "adam")
    assert found.gradient_and_optimizer_bytes == 78_000_000_000
    assert found.weights_bytes == 26_000_000_000
    assert found.inference_bytes == 31_200_000_000
    assert found.training_bytes_without_activations == 104_000_000_000


@pytest.mark.parametrize(("optimizer", "values"), [("sgd", 1), ("momentum", 2), ("adam", 3), ("adamw", 3)])
def test_each_optimizer_keeps_its_states(optimizer: str, values: int) -> None:
    assert estimate(1e9, 4, optimizer).gradient_and_optimizer_bytes == values * 4_000_000_000


def test_only_trainable_parameters_have_gradients() -> None:
    found = estimate(7e9, 2, "adam", trainable_parameters=1e7)
    assert found.gradient_and_optimizer_bytes == 60_000_000
    assert found.weights_bytes == 14_000_000_000


def test_four_bit_values_take_half_a_byte() -> None:
    assert estimate(7e9, 0.5, "adam").weights_bytes == 3_500_000_000


def test_the_explanation_goes_line_by_line() -> None:
    assert estimate(13e9, 2, "adam").explain()[:-1] == [
        "N = 13,000,000,000 parameters, of which 13,000,000,000 are trained; M = 2 bytes a value (16 bits)",
        "inference  = N x M x 1.2 = 13,000,000,000 x 2 x 1.2 = 31.20 GB "
        "(a fifth more for activations and the key-value cache)",
        "training   = weights + activations + gradients + optimizer states",
        "  weights    = N x M = 13,000,000,000 x 2 = 26.00 GB",
        "  gradients  = trained x M (one value a parameter) = 13,000,000,000 x 2 = 26.00 GB",
        "  optimizer  = trained x M x 2 = 13,000,000,000 x 2 x 2 = 52.00 GB "
        "(states a parameter: sgd 0, momentum 1, adam 2, adamw 2)",
        "  gradients + optimizer = 13,000,000,000 x 2 x (1 + 2) = 78.00 GB",
        "  in all     = 104.00 GB + activations",
    ]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((13e9, 2, "lion"), "unknown optimizer"),
        ((0, 2, "adam"), "0 parameters"),
        ((float("nan"), 2, "adam"), "nan parameters"),
        ((1e9, 0, "adam"), "0 bytes"),
        ((1e9, 2, "adam", 2e9), "trainable"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[float, float, str], word: str) -> None:
    with pytest.raises(InputError, match=word):
        estimate(*arguments)
