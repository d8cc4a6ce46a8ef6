"""What a planned run costs, and what each change would cost where nothing fits: times at the prices that are given.

Money is laid over a plan's document after it was made or read back: another price plans nothing anew, and where no
price is known none is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["priced", "with_price"]

_COSTS = {"cost": "", "low": "low_", "high": "high_"}


def priced(plan: Mapping[str, Any], price_per_hour: float | None, gpu_prices: Mapping[str, float]) -> dict[str, Any]:
    """Add money to a plan's document.

    Args:
        plan: As `Plan.to_dict` gives it.
        price_per_hour: Price of one of the planned devices for an hour, in any currency.
        gpu_prices: Prices of GPUs by their names, in the same currency.

    Returns:
        The document with the cost of its `time` and of each entry of `would_fit`; None where it isn't known.
    """
    here = gpu_prices.get(plan["gpu"]) if price_per_hour is None and plan["gpu"] else price_per_hour
    time = plan["time"]
    return {
        **plan,
        # processes that share a machine's memory are on one device
        "time": None if time is None else with_price(time, here, 1 if plan.get("together_bytes") else plan["devices"]),
        "would_fit": [
            _remedy_with_price(remedy, gpu_prices.get(remedy["value"]) if remedy["change"] == "gpu" else here)
            for remedy in plan["would_fit"]
        ],
    }


def with_price(time: Mapping[str, Any], price_per_hour: float | None, devices: int) -> dict[str, Any]:
    """Add what the run costs to a plan's `time`, where a price is known.

    Args:
        time: As `Duration.to_dict` gives it.
        price_per_hour: Price of one device for an hour, in any currency.
        devices: How many are paid for.

    Returns:
        The document with `cost`, None without a price.
    """
    if price_per_hour is None:
        return {**time, "cost": None}
    hourly = price_per_hour * devices
    cost = {name: round(time[f"{key}seconds"] / 3600 * hourly, 4) for name, key in _COSTS.items()}
    return {**time, "cost": {"price_per_hour": price_per_hour, "devices": devices, **cost}}


def _remedy_with_price(remedy: Mapping[str, Any], price_per_hour: float | None) -> dict[str, Any]:
    known = price_per_hour is not None and remedy["seconds"] is not None
    cost = round(remedy["seconds"] / 3600 * price_per_hour * remedy["devices"], 4) if known else None
    return {**remedy, "price_per_hour": price_per_hour, "cost": cost}
