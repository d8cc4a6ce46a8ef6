"""What requests and a hosted model cost at the recipe's prices, as exact fractions. Between tokens and break-even.

Prices are decimals and token counts are means of whole numbers, so nothing here is rounded before it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

__all__ = ["Prices", "Request", "exact", "prices_of", "request_cost", "request_of"]

MILLION = 1_000_000
# A mean over fewer rows than this is found again exactly from its float.
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Prices:
    """The recipe's traffic section as fractions, in one currency.

    Attributes:
        currency: Three letters.
        input_token: Price of one input token of the prompted model.
        cached_input_token: Price of one that the provider has cached.
        output_token: Price of one output token.
        cache_minimum_tokens: Shortest prefix that is cached.
        tuned_input_token: Price of an input token of the finetuned model; 0 where it is hosted by the hour.
        tuned_output_token: The same for output.
        machine_month: Price of a machine that serves the finetuned model, for a month.
        machine_requests: Requests that one machine answers in a month; None: one is enough for any number.
        training_month: Price of finetuning, spread over the months until it is done again.
        requests_per_month: The traffic.
    """

    currency: str
    input_token: Fraction
    cached_input_token: Fraction
    output_token: Fraction
    cache_minimum_tokens: int
    tuned_input_token: Fraction
    tuned_output_token: Fraction
    machine_month: Fraction
    machine_requests: int | None
    training_month: Fraction
    requests_per_month: int


@dataclass(frozen=True)
class Request:
    """The mean request of one way of prompting, in tokens; `cached_tokens` are part of `input_tokens`."""

    input_tokens: Fraction
    cached_tokens: Fraction
    output_tokens: Fraction


def exact(number: float | Fraction) -> Fraction:
    """Return a decimal of a recipe, or a mean over rows, as the fraction that it stands for."""
    decimal = Fraction(str(number))
    mean = Fraction(number).limit_denominator(MOST_ROWS)
    return mean if float(mean) == float(number) else decimal


def prices_of(traffic: Mapping[str, Any]) -> Prices:
    """Return a recipe's traffic section as fractions.

    Args:
        traffic: The section's values by key.
    """
    hours = exact(traffic["hosting_hours_per_month"])
    hourly = traffic["hosting_requests_per_hour"]
    return Prices(
        currency=traffic["currency"],
        input_token=exact(traffic["price_per_million_input_tokens"]) / MILLION,
        cached_input_token=exact(traffic["price_per_million_cached_input_tokens"]) / MILLION,
        output_token=exact(traffic["price_per_million_output_tokens"]) / MILLION,
        cache_minimum_tokens=traffic["cache_minimum_tokens"],
        tuned_input_token=exact(traffic["tuned_price_per_million_input_tokens"]) / MILLION,
        tuned_output_token=exact(traffic["tuned_price_per_million_output_tokens"]) / MILLION,
        machine_month=exact(traffic["hosting_price_per_hour"]) * hours,
        # what can't be answered within the hours can't be answered
        machine_requests=None if hourly is None else int(hourly * hours),
        training_month=exact(traffic["training_cost"]) / exact(traffic["training_months"]),
        requests_per_month=traffic["requests_per_month"],
    )


def request_of(
    prompt_tokens: float | Fraction,
    output_tokens: float | Fraction,
    shared_prefix_tokens: Sequence[int],
    cache_minimum_tokens: int,
) -> Request:
    """Return the mean request of measured ones.

    Args:
        prompt_tokens: Mean length of the prompts.
        output_tokens: Mean length of the answers.
        shared_prefix_tokens: For each request its shared prefix; none, nothing is cached.
        cache_minimum_tokens: Shortest prefix that the provider caches.
    """
    cached = sum(tokens for tokens in shared_prefix_tokens if tokens >= cache_minimum_tokens)
    mean = Fraction(cached, len(shared_prefix_tokens)) if shared_prefix_tokens else Fraction(0)
    return Request(exact(prompt_tokens), min(mean, exact(prompt_tokens)), exact(output_tokens))


def request_cost(request: Request, prices: Prices, *, caching: bool) -> Fraction:
    """Return what one request to the prompted model costs.

    Args:
        request: Its tokens.
        prices: The prices.
        caching: Whether the provider's prompt cache is used.
    """
    cached = request.cached_tokens if caching else Fraction(0)
    return (
        (request.input_tokens - cached) * prices.input_token
        + cached * prices.cached_input_token
        + request.output_tokens * prices.output_token
    )
