"""The decision's money: each candidate's cost, the break-even of finetuning, and what it hangs on.

Computed from the decision document at the recipe's prices. No part of the decision's content key: another price
measures nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from components.decision.break_even import BreakEven, break_even, machines_for, tuned_month
from components.decision.prices import Prices, Request, exact, prices_of, request_cost, request_of

__all__ = ["FACTORS", "money"]

FACTORS = (Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))
# An oracle's passages are in no request; a champion and a probe are finetuned models themselves.
UNPRICED = ("oracle", "champion", "probe")
HALF, DOUBLE = Fraction(1, 2), Fraction(2)


def money(decision: Mapping[str, Any], traffic: Mapping[str, Any]) -> dict[str, Any]:
    """Put prices on a decision.

    Args:
        decision: The decision document: `candidates` with their tokens, `finetuned_request`, `best_candidate`, and
            where passages are retrieved `finetuned_request_with_passages`.
        traffic: The recipe's traffic section.

    Returns:
        `currency`; `requests_per_month`; `candidates` [{name, input_tokens, cached_tokens, output_tokens,
        per_1000_requests, per_1000_requests_cached, per_month, per_month_cached}]; `finetuned` {input_tokens,
        output_tokens, hosting_per_month, training_per_month, per_request, machines, per_month}; `break_even`
        [{candidate, caching, kind, requests_per_month, machines, saving_per_1000_requests, reason, pays_at_traffic,
        tuned_input_tokens}];
        `sensitivity` {candidate, caching, inputs [{input, half, double}], grid {prices, tokens_saved, requests}}.
    """
    prices = prices_of(traffic)
    tuned = _request(decision["finetuned_request"], prices)
    # what retrieves keeps its passages when it is finetuned: only the examples leave the prompt
    passages = decision.get("finetuned_request_with_passages")
    with_passages = _request(passages, prices) if passages else tuned
    instead = {
        found["name"]: with_passages if found.get("kind") == "retrieval" else tuned for found in decision["candidates"]
    }
    requests = {
        found["name"]: _request(found, prices) for found in decision["candidates"] if found.get("kind") not in UNPRICED
    }
    monthly = prices.requests_per_month
    candidates = []
    for name, request in requests.items():
        plain, cached = (request_cost(request, prices, caching=caching) for caching in (False, True))
        candidates.append(
            {
                "name": name,
                "input_tokens": float(request.input_tokens),
                "cached_tokens": float(request.cached_tokens),
                "output_tokens": float(request.output_tokens),
                "per_1000_requests": float(1000 * plain),
                "per_1000_requests_cached": float(1000 * cached),
                "per_month": float(monthly * plain),
                "per_month_cached": float(monthly * cached),
            }
        )
    compared = _compared(requests, prices, decision)
    return {
        "currency": prices.currency,
        "requests_per_month": monthly,
        "candidates": candidates,
        "finetuned": {
            "input_tokens": float(tuned.input_tokens),
            "output_tokens": float(tuned.output_tokens),
            "hosting_per_month": float(prices.machine_month * machines_for(monthly, prices.machine_requests)),
            "training_per_month": float(prices.training_month),
            "per_request": float(_tuned_cost(tuned, prices)),
            "machines": machines_for(monthly, prices.machine_requests),
            "per_month": float(_tuned_month(tuned, prices, monthly)),
        },
        "break_even": [
            _break_even_row(name, request, instead[name], prices, caching)
            for name, request in requests.items()
            for caching in (False, True)
        ],
        "sensitivity": _sensitivity(compared, requests[compared], instead[compared], prices),
    }


def _request(found: Mapping[str, Any], prices: Prices) -> Request:
    prompt = exact(found["prompt_tokens_per_request"])
    output = exact(found["tokens_per_request"]) - prompt
    return request_of(prompt, output, found["shared_prefix_tokens"], prices.cache_minimum_tokens)


def _tuned_cost(tuned: Request, prices: Prices) -> Fraction:
    return tuned.input_tokens * prices.tuned_input_token + tuned.output_tokens * prices.tuned_output_token


def _tuned_month(tuned: Request, prices: Prices, requests: int) -> Fraction:
    each = _tuned_cost(tuned, prices)
    return tuned_month(requests, each, prices.training_month, prices.machine_month, prices.machine_requests)


def _break_even(request: Request, tuned: Request, prices: Prices, caching: bool) -> BreakEven:
    prompted, each = request_cost(request, prices, caching=caching), _tuned_cost(tuned, prices)
    return break_even(prompted, each, prices.training_month, prices.machine_month, prices.machine_requests)


def _break_even_row(name: str, request: Request, tuned: Request, prices: Prices, caching: bool) -> dict[str, Any]:
    found = _break_even(request, tuned, prices, caching)
    prompted = request_cost(request, prices, caching=caching)
    monthly = prices.requests_per_month
    return {
        "candidate": name,
        "caching": caching,
        "kind": found.kind,
        "requests_per_month": found.requests_per_month,
        "machines": found.machines,
        "saving_per_1000_requests": float(1000 * (prompted - _tuned_cost(tuned, prices))),
        "reason": found.reason,
        "tuned_input_tokens": float(tuned.input_tokens),
        "pays_at_traffic": _tuned_month(tuned, prices, monthly) <= monthly * prompted,
    }


def _compared(requests: Mapping[str, Request], prices: Prices, decision: Mapping[str, Any]) -> str:
    """Return the best candidate, or where it carries no more than the finetuned model the one that carries most."""
    costs = {name: request_cost(request, prices, caching=False) for name, request in requests.items()}
    best, least = decision["best_candidate"], min(costs.values())
    return best if costs.get(best, least) > least else max(costs, key=lambda name: costs[name])


def _sensitivity(name: str, request: Request, tuned: Request, prices: Prices) -> dict[str, Any]:
    def at(changed: Prices, examples: Fraction = Fraction(1)) -> int | None:
        return _break_even(_with_examples(request, tuned, examples), tuned, changed, False).requests_per_month

    def scaled(factor: Fraction, *fields: str) -> Prices:
        return replace(prices, **{field: getattr(prices, field) * factor for field in fields})

    inputs: list[dict[str, Any]] = [
        {"input": label, "half": at(scaled(HALF, *fields)), "double": at(scaled(DOUBLE, *fields))}
        for label, fields in (
            ("price of input tokens", ("input_token", "cached_input_token")),
            ("price of output tokens", ("output_token",)),
            ("price of the finetuned model's tokens", ("tuned_input_token", "tuned_output_token")),
            ("hosting", ("machine_month",)),
            ("training", ("training_month",)),
        )
    ]
    inputs.insert(1, {"input": "tokens of the examples", "half": at(prices, HALF), "double": at(prices, DOUBLE)})
    saved = request.input_tokens - tuned.input_tokens
    token_prices = ("input_token", "cached_input_token", "output_token")
    return {
        "candidate": name,
        "caching": False,
        "now": at(prices),
        "inputs": inputs,
        "grid": {
            "price_per_million_input_tokens": [float(prices.input_token * f * 1_000_000) for f in FACTORS],
            "tokens_saved": [float(saved * f) for f in FACTORS],
            # a row a price, a column a number of tokens
            "requests_per_month": [[at(scaled(f, *token_prices), g) for g in FACTORS] for f in FACTORS],
        },
    }


def _with_examples(request: Request, tuned: Request, factor: Fraction) -> Request:
    """Return a request that carries so many times the tokens beyond what the finetuned model is given."""
    return replace(
        request,
        input_tokens=max(Fraction(0), tuned.input_tokens + factor * (request.input_tokens - tuned.input_tokens)),
        cached_tokens=Fraction(0),
    )
