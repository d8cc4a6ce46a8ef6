"""Does `decide` reach the right verdict where it is known? Run with `python -m benchmarks.decision [--only NAME …]`.

Every scenario runs on the real 135M model (one on a random one) and is kept as JSON, by what it depends on: a second
run measures only what is new. Prints the confusion table; exit status 3 when fewer than 11 of 12 are right.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.decision.scenario import Scenario
from benchmarks.decision.scenarios import SCENARIOS
from components.data.rows import Row
from components.decision.context import ContextSource
from components.decision.decide import decide
from components.decision.verdict import VERDICTS
from components.files import digest_of, sha256_file, write_json
from components.models.fingerprint import fingerprint
from components.models.load import load_model, load_tokenizer
from components.paths import home
from components.runtime import prepare_process

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "components/decision",
    "components/evaluation",
    "components/data",
    "components/finetuning",
    "components/models",
    "benchmarks/decision",
)
LIBRARIES = ("torch", "transformers", "peft", "accelerate")
BASE = "smollm2-135m-instruct"
AIM = 11 / 12


def main() -> None:
    """Run the scenarios that have no result yet and print the confusion table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="This scenario; repeat for several.")
    parser.add_argument("--results", type=Path, default=home() / "benchmarks" / "decision")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as many as this process may use.")
    parser.add_argument("--again", action="store_true", help="Measure even what is there.")
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    bench = _Bench(arguments.results)
    found = [bench.run(name, again=arguments.again) for name in arguments.only or SCENARIOS]
    print(table(found))
    right = sum(result["verdict"] == result["expected"] for result in found)
    print(f"{right} of {len(found)} right, {sum(r['seconds'] for r in found):.0f} s, "
          f"{sum(r['cpu_seconds'] for r in found):.0f} s of processor time")  # fmt: skip
    raise SystemExit(0 if right >= AIM * len(found) else 3)


class _Bench:
    """The bases, loaded once, and the folder of results."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._loaded: dict[str, tuple[Any, Any, Path]] = {}
        self._folders: dict[str, Path] = {}
        files = [file for package in CODE for file in sorted((ROOT / package).rglob("*.py"))]
        self._code = digest_of({str(file.relative_to(ROOT)): sha256_file(file) for file in files})

    def run(self, name: str, *, again: bool) -> dict[str, Any]:
        """Return a scenario's result, measured now or kept."""
        scenario = SCENARIOS[name]()
        key = digest_of(self._reads(scenario))
        path = self.results / f"{name}.json"
        if path.exists() and not again:
            kept: dict[str, Any] = json.loads(path.read_text())
            if kept["key"] == key:
                return kept
        started, processor = time.monotonic(), time.process_time()
        document = self._decide(scenario)
        result = {
            "key": key,
            "scenario": name,
            "expected": scenario.expected,
            "why": scenario.why,
            "verdict": document["verdict"],
            "seconds": time.monotonic() - started,
            "cpu_seconds": time.process_time() - processor,
            "decision": document,
        }
        write_json(path, result)
        print(line(result), flush=True)
        return result

    def _reads(self, scenario: Scenario) -> dict[str, Any]:
        """Return everything that a result depends on: code, libraries, the base's files, the scenario."""
        return {
            "code": self._code,
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "base": asdict(fingerprint(self._folder(scenario.base))),
            "scenario": _plain(scenario),
        }

    def _decide(self, scenario: Scenario) -> dict[str, Any]:
        model, tokenizer, folder = self._base(scenario.base)
        settings = dict(scenario.settings)
        passages = settings.pop("passages", 1)
        probe = (scenario.probe, self._trainer(folder, scenario.name)) if scenario.probe else None
        decision = decide(
            model,
            tokenizer,
            dev_rows=scenario.dev,
            train_rows=scenario.train,
            metric="exact_match",
            metric_options={},
            min_train_rows=100,
            seed=17,
            context=ContextSource(scenario.passages, passages) if scenario.passages else None,
            probe=probe,
            **settings,
        )
        return decision.to_dict()

    def _base(self, kind: str) -> tuple[Any, Any, Path]:
        if kind not in self._loaded:
            folder = self._folder(kind)
            self._loaded[kind] = (load_model(folder), load_tokenizer(folder), folder)
        return self._loaded[kind]

    def _folder(self, kind: str) -> Path:
        """Return a base's folder, made or brought once."""
        if kind not in self._folders:
            from components.models.sources import locate_base
            from components.models.tiny import make_tiny

            tiny = kind == "tiny"
            self._folders[kind] = make_tiny(self.results / "tiny", seed=5) if tiny else locate_base(BASE).folder
        return self._folders[kind]

    def _trainer(self, folder: Path, name: str) -> Callable[[Sequence[Row]], Any]:
        """Return a function that finetunes on rows with the recipe's default settings and gives back the model."""
        from components.finetuning.finetune import FinetuneSettings, finetune
        from components.finetuning.lora import LoraSettings

        lora = LoraSettings(rank=16, alpha=32, dropout=0.0, targets="all-linear", seed=17)
        settings = FinetuneSettings("lora", lora, epochs=2, rows_per_sequence=8, gradient_accumulation_steps=2, seed=17)

        def train(rows: Sequence[Row]) -> Any:
            identity = {"rows": digest_of([row.to_dict() for row in rows])}
            run_folder = self.results / "probes" / f"{name}-{identity['rows'][:12]}"
            found = finetune(
                folder, rows, [], settings, run_folder=run_folder, identity=identity, checkpoint_steps=10**6
            )
            return load_model(folder, adapter=found.weights, merge=True)

        return train


def _plain(scenario: Scenario) -> dict[str, Any]:
    return {
        **{name: value for name, value in asdict(scenario).items() if name not in ("train", "dev")},
        "rows": [row.to_dict() for row in (*scenario.train, *scenario.dev)],
        "train": len(scenario.train),
    }


def line(result: dict[str, Any]) -> str:
    """Render one scenario: what was expected, what was reached, the scores behind it."""
    mark = "right" if result["verdict"] == result["expected"] else "WRONG"
    scores = ", ".join(f"{c['name']} {100 * c['score']:.0f} %" for c in result["decision"]["candidates"])
    failures = "/".join(str(count) for count in result["decision"]["failures"].values())
    return (
        f"{result['scenario']:<24}{result['expected']:<18}{result['verdict']:<18}{mark}  {result['seconds']:>4.0f} s  "
        f"form/facts/capability {failures}; {scores}"
    )


def table(results: Sequence[dict[str, Any]]) -> str:
    """Render the confusion table: a row for each right verdict, a column for each that was reached."""
    counts = Counter((result["expected"], result["verdict"]) for result in results)
    width = max(map(len, VERDICTS)) + 2
    lines = [line(result) for result in results]
    lines += ["", "".join(f"{name:>{width}}" for name in ("expected", *VERDICTS))]
    for expected in VERDICTS:
        cells = [str(counts[expected, reached] or ".") for reached in VERDICTS]
        lines.append("".join(f"{text:>{width}}" for text in (expected, *cells)))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
