"""The break-even against a search through every number of requests."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.decision.break_even import break_even, machines_for, tuned_month
from components.decision.prices import Prices, exact, prices_of, request_cost, request_of

TRAFFIC = {
    "currency": "USD",
    "requests_per_month": 1000,
    "price_per_million_input_tokens": 0.15,
    "price_per_million_cached_input_tokens": 0.075,
    "price_per_million_output_tokens": 0.6,
    "cache_minimum_tokens": 1024,
    "tuned_price_per_million_input_tokens": 0.0,
    "tuned_price_per_million_output_tokens": 0.0,
    "hosting_price_per_hour": 0.8,
    "hosting_hours_per_month": 730.0,
    "hosting_requests_per_hour": None,
    "training_cost": 20.0,
    "training_months": 12.0,
}


def prices(**changed: object) -> Prices:
    return prices_of({**TRAFFIC, **changed})


def test_break_even_is_the_fixed_costs_over_the_saving_to_the_last_request() -> None:
    # 1 / 1000 saved on each request: 600 pay for 0.6 exactly, and one fewer does not
    found = break_even(Fraction(3, 1000), Fraction(2, 1000), Fraction(1, 10), Fraction(1, 2))
    assert (found.kind, found.requests_per_month, found.machines) == ("from", 600, 1)
    found = break_even(Fraction(3, 1000), Fraction(2, 1000), Fraction(1, 10) + Fraction(1, 10**12), Fraction(1, 2))
    assert found.requests_per_month == 601


@pytest.mark.parametrize(
    ("tuned", "word"), [(Fraction(1, 100), "costs as much as"), (Fraction(1, 10), "costs more than")]
)
def test_request_that_saves_nothing_never_pays_whatever_hosting_costs(tuned: Fraction, word: str) -> None:
    for fixed in (Fraction(0), Fraction(5)):
        found = break_even(Fraction(1, 100), tuned, Fraction(0), fixed)
        assert (found.kind, found.requests_per_month, found.machines) == ("never", None, None)
        assert word in found.reason


def test_model_that_is_neither_hosted_nor_trained_always_pays() -> None:
    found = break_even(Fraction(1, 100), Fraction(0), Fraction(0), Fraction(0))
    assert (found.kind, found.requests_per_month) == ("always", 0)


def test_machine_that_saves_less_than_it_costs_never_pays_at_any_traffic() -> None:
    found = break_even(Fraction(1), Fraction(0), Fraction(0), Fraction(10), machine_requests=9)
    assert (found.kind, found.requests_per_month) == ("never", None)
    assert break_even(Fraction(1), Fraction(0), Fraction(0), Fraction(10), machine_requests=10).requests_per_month == 10
    # full machines that just pay for themselves never pay for training
    assert break_even(Fraction(1), Fraction(0), Fraction(1), Fraction(10), machine_requests=10).kind == "never"


def test_training_that_one_machine_cannot_pay_is_paid_by_several() -> None:
    # a full machine saves 12 and costs 10: two a machine, so training of 5 takes three
    found = break_even(Fraction(1), Fraction(0), Fraction(5), Fraction(10), machine_requests=12)
    assert (found.machines, found.requests_per_month) == (3, 35)


@settings(max_examples=300, deadline=None)
@given(
    prompted=st.integers(0, 12), tuned=st.integers(0, 12), training=st.integers(0, 40), machine=st.integers(0, 30),
    capacity=st.one_of(st.none(), st.integers(1, 15)),
)  # fmt: skip
def test_break_even_agrees_with_trying_every_number_of_requests(
    prompted: int, tuned: int, training: int, machine: int, capacity: int | None
) -> None:
    c, t, fixed, hosting = Fraction(prompted, 4), Fraction(tuned, 4), Fraction(training), Fraction(machine)
    found = break_even(c, t, fixed, hosting, capacity)
    # with these numbers whatever pays does so far below this
    first = next(
        (n for n in range(1, 3000) if tuned_month(n, t, fixed, hosting, capacity) <= n * c and (c > t)),
        None,
    )
    if found.kind == "never":
        assert first is None
    elif found.kind == "always":
        assert first == 1
    else:
        assert found.requests_per_month == first
        assert first is not None
        assert found.machines == machines_for(first, capacity)


def test_prices_are_exact_fractions_of_what_the_recipe_says() -> None:
    found = prices()
    assert found.input_token == Fraction(15, 100 * 1_000_000)
    assert found.machine_month == Fraction(584)
    assert found.training_month == Fraction(5, 3)
    assert prices(price_per_million_input_tokens=1e-9).input_token == Fraction(1, 10**15)
    assert prices(hosting_requests_per_hour=3600).machine_requests == 3600 * 730
    # a mean over rows is found again from its float
    assert exact(100 / 7) == Fraction(100, 7)


def test_cached_tokens_are_paid_less_only_where_the_prefix_is_long_enough() -> None:
    found = prices()
    # of the two requests one has a prefix of 1,024 tokens or more
    request = request_of(2000, 10, [1500, 1000], found.cache_minimum_tokens)
    plain = request_cost(request, found, caching=False)
    assert plain == (2000 * Fraction(15, 100) + 10 * Fraction(6, 10)) / 1_000_000
    assert request_cost(request, found, caching=True) == plain - 750 * Fraction(75, 1000) / 1_000_000
    longer = request_of(2000, 10, [1500, 1000], 1600)
    assert request_cost(longer, found, caching=True) == plain
