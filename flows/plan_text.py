"""A plan in words: what was chosen, what it takes and how long, why the others lost, and what would fit."""

from __future__ import annotations

from typing import Any

__all__ = ["duration", "kernel_lines", "name", "remedy_line", "render", "time_lines", "together_lines"]

GIB = 2**30


def name(plan: dict[str, Any]) -> str:
    """Name a plan, or one of its alternatives, in one clause."""
    checkpointing = ", gradient checkpointing" if plan["gradient_checkpointing"] else ""
    optimizer = "" if plan["optimizer"] == "adamw" else f", {plan['optimizer']}"
    sharding = {"none": "", "data-parallel": ", a copy on each device", "fsdp": ", sharded over the devices (FSDP)"}
    return (
        f"{plan['method']} in {plan['dtype']}, micro-batch {plan['micro_batch_size']} x accumulation "
        f"{plan['gradient_accumulation_steps']}{checkpointing}{optimizer}{sharding[plan['sharding']]}"
    )


def render(plan: dict[str, Any], explain: bool) -> str:
    """Turn a plan's document into text.

    Args:
        plan: The document of `plan RECIPE` or `plan --base`.
        explain: Say how the peak comes about.
    """
    peak, budget = plan["peak_bytes"], plan["budget_bytes"]
    lines = [
        f"{'plan' if plan['fits'] else 'nearest'}: {name(plan)}",
        f"peak {peak / GIB:.2f} GiB of {budget / GIB:.2f} GiB ({plan['budget_source']}); "
        f"{plan['margin_bytes'] / GIB:.2f} GiB to spare, {plan['headroom_fraction']:.0%} is kept free",
    ]
    lines += [f"  {part:<12}{size / GIB:>8.2f} GiB" for part, size in plan["breakdown"].items()]
    if plan["host_bytes"]:
        lines.append(
            f"  beside it {plan['host_bytes'] / GIB:.2f} GiB in the host's memory: optimizer states off the device"
        )
    where = plan["peak_module"] or ("the optimizer" if plan["peak_phase"] == "step" else "the loss")
    lines.append(f"peak in the {plan['peak_phase']} pass, at {where}; sequences of {plan['sequence_tokens']} tokens")
    lines += together_lines(plan)
    if plan["bfloat16_speedup"] is not None:
        lines.append(
            f"bfloat16 runs at {plan['bfloat16_speedup']:.2f} times the speed of float32 here, so {plan['dtype']}"
        )
    elif plan["gpu"] is not None and plan["dtype"] == "float16":
        lines.append(f"{plan['gpu']} has no bfloat16: float16, with loss scaling")
    lines += kernel_lines(plan)
    lines += time_lines(plan)
    lines.append("alternatives")
    lines += [
        f"  {name(other)}: {other['peak_bytes'] / GIB:.2f} GiB, {other['relative_seconds']:.2f} x time; "
        f"{other['why_not']}"
        for other in plan["alternatives"]
    ]
    if not plan["fits"]:
        lines.append("what would fit (estimated)")
        lines += [f"  {remedy_line(remedy)}" for remedy in plan["would_fit"]] or ["  no single change"]
    return "\n".join([*lines, *(_explanation(plan) if explain else [])])


def together_lines(plan: dict[str, Any]) -> list[str]:
    """Say of a plan for several devices that its figures are those of one, and what all take together."""
    if plan["devices"] == 1:
        return []
    if plan.get("together_bytes") is None:
        return [f"{plan['devices']} devices: memory is that of each"]
    return [
        f"{plan['devices']} processes on this machine: peak and budget are those of each; all of them and the one that "
        f"starts them take {plan['together_bytes'] / GIB:.2f} GiB"
    ]


def remedy_line(remedy: dict[str, Any]) -> str:
    """Say what a change that makes a run fit takes: memory, time and, where a price is known, money."""
    parts = [
        f"{remedy['words']}: peak {remedy['peak_bytes'] / GIB:.2f} GiB; "
        f"{remedy['memory_bytes'] / GIB:.1f} GiB of memory to pay for"
    ]
    ratio, seconds = remedy["relative_seconds"], remedy["seconds"]
    took = "" if seconds is None else f"about {duration(seconds)}"
    against = "" if ratio is None else f"{ratio:.2f} x the time of the nearest for the same tokens"
    parts.append(f"{took} ({against})" if took and against else took or against or "time not known")
    if remedy["cost"] is not None:
        devices = f"{remedy['devices']} x " if remedy["devices"] > 1 else ""
        parts.append(f"cost {remedy['cost']:,.2f} at {devices}{remedy['price_per_hour']:g} an hour")
    elif remedy["change"] == "gpu" and remedy["price_per_hour"] is None:
        parts.append(f"no price is known for {remedy['value']} (--gpu-price {remedy['value']}=PRICE)")
    return "; ".join(parts)


def time_lines(plan: dict[str, Any]) -> list[str]:
    """Say how long the run will take and what it will cost, with the interval."""
    time = plan["time"]
    if time is None:
        return []
    lines = [
        f"{time['steps']:,} {'step' if time['steps'] == 1 else 'steps'} over {time['tokens']:,} tokens: about "
        f"{duration(time['seconds'])} ({duration(time['low_seconds'])} to {duration(time['high_seconds'])}), "
        f"{time['tokens_per_second']:,.0f} tokens/s",
        f"  {time['how']}",
    ]
    if time["cost"] is not None:
        cost = time["cost"]
        each = (
            f"{cost['devices']} x {cost['price_per_hour']:g}" if cost["devices"] > 1 else f"{cost['price_per_hour']:g}"
        )
        lines.append(f"  cost at {each} an hour: {cost['cost']:,.2f} ({cost['low']:,.2f} to {cost['high']:,.2f})")
    return lines


def kernel_lines(plan: dict[str, Any]) -> list[str]:
    """Say what computes a training step, and why."""
    kernels = plan.get("kernels")
    if kernels is None:
        return []
    why = kernels["reasons"]
    compiled, liger = ("on" if kernels[name] else "off" for name in ("compile", "liger"))
    return [
        f"attention by {kernels['attention']}: {why['attention']}",
        f"torch.compile {compiled}: {why['compile']}",
        f"Liger kernels {liger}: {why['liger']}",
    ]


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


def _explanation(plan: dict[str, Any]) -> list[str]:
    extra = plan["overhead"]
    tensors = plan["peak_bytes"] - sum(extra.values())
    trainable, total = plan["trainable_parameters"], plan["total_parameters"]
    return [
        "how the peak comes about",
        f"  {tensors / GIB:.2f} GiB of tensors, from one real step under fake tensors: {trainable:,} of {total:,} "
        "parameters are trained",
        *_tensor_lines(plan),
        f"  + {extra['baseline_bytes'] / GIB:.2f} GiB for interpreter and frameworks, measured in a process of its own",
        f"  + {extra['allocator_bytes'] / GIB:.2f} GiB that the allocator keeps beyond live tensors",
        f"  + {extra['mapped_bytes'] / GIB:.2f} GiB of the weight file that stays mapped",
        f"  {plan['flops_per_step'] / 1e12:.2f} TFLOP an optimizer step",
    ]


def _tensor_lines(plan: dict[str, Any]) -> list[str]:
    """Hold each part of the tensors against the parameters that it comes from."""
    parts, trainable, total = plan["breakdown"], plan["trainable_parameters"], plan["total_parameters"]
    lines = [f"    weights {parts['weights'] / GIB:.2f} GiB: {parts['weights'] / total:.2f} bytes a parameter"]
    for part in ("gradients", "optimizer"):
        each = f"{parts[part] / max(1, trainable):.2f} bytes a trained parameter"
        lines.append(f"    {part} {parts[part] / GIB:.2f} GiB: {each if parts[part] else 'none at that moment'}")
    tokens = plan["micro_batch_size"] * plan["sequence_tokens"]
    each = f"{parts['activations'] / tokens / 1024:,.0f} KiB for each of {tokens:,} tokens"
    lines.append(f"    activations {parts['activations'] / GIB:.2f} GiB: {each}")
    return lines
