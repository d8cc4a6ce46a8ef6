"""Useful tokens a second and peak memory, side by side: `python -m benchmarks.finetuning`.

Useful tokens are those of the rows, each row's prompt and answer counted whole: padding isn't useful, and a prompt
that rows share and that is computed once counts for every row, since every row is trained as it would be alone.
Exit status 3: an aim was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.finetuning.contestant import CONTESTANTS, SEED, Spec, our_settings
from benchmarks.finetuning.workloads import ROWS_PER_STEP, WORKLOADS, rows_of
from components.data.chat import encode
from components.data.rows import Row
from components.finetuning.run_schedule import training_schedule

ROOT = Path(__file__).resolve().parents[2]
MISSED = 3
# aimed at, against TRL: tokens a second as it comes and at its best, and memory as it comes
AIM_AS_IT_COMES = {"float32": 3.0, "bfloat16": 5.0}
AIM_AT_ITS_BEST = 1.5
AIM_MEMORY = 0.55


def main() -> None:
    """Run every contestant in a process of its own, print the table, and say which aims were met."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--method", choices=("lora", "qlora", "full"), default="lora")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--workload", choices=tuple(WORKLOADS), default="mixed")
    parser.add_argument("--steps", type=int, default=3, help="of 8 rows each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", default=[], help="contestants whose name holds this; repeatable")
    parser.add_argument("--rows", type=Path, default=Path("data/text2sql/train.jsonl"))
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()

    from components.models.load import load_tokenizer
    from components.models.sources import locate_base

    folder = locate_base(arguments.base).folder
    tokenizer = load_tokenizer(folder)
    rows = rows_of(arguments.workload, arguments.rows, arguments.steps, SEED)
    encoded = [encode(tokenizer, row.messages, prompt_loss_weight=0.0) for row in rows]
    useful = sum(len(row.input_ids) for row in encoded)
    longest = max(len(row.input_ids) for row in encoded)
    print(
        f"{arguments.method} in {arguments.dtype}, {arguments.workload}: {len(rows)} rows of up to {longest} tokens, "
        f"{useful:,} in all, {ROWS_PER_STEP} rows a step, {arguments.threads} threads\n"
    )
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        given, ordered = Path(scratch) / "given.jsonl", Path(scratch) / "ordered.jsonl"
        for file, those in ((given, rows), (ordered, _in_our_order(tokenizer, rows))):
            file.write_text("".join(json.dumps(_document(row)) + "\n" for row in those))
        for name in (
            name for name in CONTESTANTS if not arguments.only or any(text in name for text in arguments.only)
        ):
            # ours puts them into its own order, in which the others get them
            file = given if name.startswith("Tunewright") else ordered
            spec = Spec(name, arguments.method, arguments.dtype, str(folder), str(file), arguments.threads)
            result = _measured(spec)
            found.append({"name": name, "tokens_per_second": useful / result["seconds"], **result})
            print(_line(found[-1], found[0]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1))
    if not arguments.only:
        sys.exit(0 if _summary(found, arguments.dtype) else MISSED)


def _in_our_order(tokenizer: Any, rows: Sequence[Row]) -> list[Row]:
    """Return the rows in the order in which one row a sequence is trained, so that all see the same rows in a step."""
    by_line = {place: replace(row, line=place) for place, row in enumerate(rows)}
    schedule, _ = training_schedule(tokenizer, list(by_line.values()), our_settings("lora", "float32", 1))
    return [by_line[line] for step in schedule.lines for line in step]


def _document(row: Row) -> dict[str, Any]:
    return {"messages": [asdict(message) for message in row.messages], "metadata": dict(row.metadata)}


def _measured(spec: Spec) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(spec.threads), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.finetuning.contestant", json.dumps(asdict(spec))],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{spec.name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _line(row: dict[str, Any], first: dict[str, Any]) -> str:
    losses = " ".join(f"{loss:.4f}" for loss in row["losses"])
    return (
        f"{row['name']:<34} {row['tokens_per_second']:6.0f} tokens/s  "
        f"{row['tokens_per_second'] / first['tokens_per_second']:5.2f} x  "
        f"{row['peak_bytes'] / 2**20:7,.0f} MiB  {row['peak_bytes'] / first['peak_bytes']:4.2f} x  losses {losses}"
    )


def _summary(found: Sequence[dict[str, Any]], dtype: str) -> bool:
    by_name = {row["name"]: row for row in found}
    ours, as_it_comes = by_name["Tunewright"], by_name["TRL as it comes"]
    best = max((row for row in found if row["name"].startswith("TRL")), key=lambda row: row["tokens_per_second"])
    aims = [
        ("TRL as it comes, tokens/s", ours["tokens_per_second"] / as_it_comes["tokens_per_second"],
         AIM_AS_IT_COMES[dtype], True),
        (f"{best['name']} (its best), tokens/s", ours["tokens_per_second"] / best["tokens_per_second"],
         AIM_AT_ITS_BEST, True),
        ("TRL as it comes, memory", ours["peak_bytes"] / as_it_comes["peak_bytes"], AIM_MEMORY, False),
    ]  # fmt: skip
    print()
    met = True
    for name, ratio, aim, larger in aims:
        good = ratio >= aim if larger else ratio <= aim
        met &= good
        print(f"{ratio:5.2f} x {name}: aim {'at least' if larger else 'at most'} {aim}, {'met' if good else 'missed'}")
    return met


if __name__ == "__main__":
    main()
