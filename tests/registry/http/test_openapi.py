"""Schemathesis on the API's own OpenAPI document: no server error, no answer that the schema doesn't have.

Requests are drawn without chance (`derandomize`), a few for each operation, fitting the schema and not, on both
databases; with EXAMPLES_PER_OPERATION in the environment so many, by chance. Every check that Schemathesis has is made.
Two are told more than their defaults: what fits the schema may still be refused with 400, 413 or 422, since a REF's
grammar, a manifest's contradictions, a digest and the gate's verdict are more than a schema can say; and what doesn't
fit it may be too large besides.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig

from registry.gate import Policy
from registry.http.app import make_app
from registry.http.guard import Limits
from registry.http.tokens import Tokens
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

DEEPER = os.environ.get("EXAMPLES_PER_OPERATION")
EXAMPLES = int(DEEPER or 6)
FINGERPRINT, DATA = "ab" * 32, "cd" * 32
REPORT = {"task": {"metric": "m", "n": 128, "tuned": 0.5, "delta": 0.2, "low": 0.1, "high": 0.3},
          "tax": [{"suite": "s", "low": 0.0}]}  # fmt: skip
REFUSALS = ["400", "401", "403", "404", "409", "413", "422"]
CONFIG: dict[str, Any] = {
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", *REFUSALS]},
        "negative_data_rejection": {"expected-statuses": ["405", "406", "428", *REFUSALS]},
    }
}


@pytest.fixture
def api(registry: Registry, tmp_path: Path) -> Any:
    """The schema of a server with a token and a few versions in its registry, and what its paths may name of them."""
    source = tmp_path / "config.json"
    source.write_text("{}")
    files = {"config.json": source}
    described = describe_files(files)
    base = registry.register("a", Manifest("base", described, base_fingerprint=FINGERPRINT), files)
    parents = (Parent(base.digest, "base"),)
    adapter = Manifest("adapter", described, base_fingerprint=FINGERPRINT, parents=parents, data_digests={"d": DATA})
    version = registry.register("b/c", adapter, files)
    registry.record_evaluation(version.digest, REPORT)
    registry.promote(version.digest, "champion", policy=Policy(), actor="a")
    tokens = Tokens(registry.folder)
    secret = tokens.add("tester", "promote")
    app = make_app(registry, tokens, limits=Limits(body_bytes=100_000, blob_bytes=100_000))
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app, config=SchemathesisConfig.from_dict(CONFIG))
    schema.config.update(headers={"Authorization": f"Bearer {secret}"})
    known = {
        "ref": ["a", "b/c@champion", "b/c:v1", base.digest[:12]],
        "target": ["b/c@champion"],
        "digest": [version.digest, DATA],
        "sha256": [described["config.json"].sha256],
    }
    return schema, known


def drive(
    schema: Any, mode: GenerationMode, examples: int, known: Mapping[str, list[str]] | None = None
) -> tuple[Counter[str], list[str]]:
    """Ask everything that a schema has, and return what kinds of answers came and which checks failed.

    In every other request what `known` has for a parameter of the path stands in the place of what was drawn: chance
    alone would never name a version that is there.
    """
    load_all_checks()
    checks = list(CHECKS.get_all())
    answers: Counter[str] = Counter()
    failures = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=DEEPER is None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case: Any) -> None:
            turn = answers.total() // 2
            for name, values in (known or {}).items():
                if turn % 2 and name in case.path_parameters:
                    case.path_parameters[name] = values[turn // 2 % len(values)]
            answer = case.call()
            answers[f"{answer.status_code // 100}xx"] += 1
            answers[str(answer.status_code)] += 1
            case.validate_response(answer, checks=checks)

        try:
            keeps()
        except (SkipTest, Unsatisfiable):  # nothing can be wrong about an operation that takes nothing
            assert mode is GenerationMode.NEGATIVE
        except BaseExceptionGroup as group:
            failures.append(f"{operation.label}: " + "; ".join(str(one) for one in group.exceptions))
    return answers, failures


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_server_keeps_to_its_schema(api: Any, mode: GenerationMode) -> None:
    schema, known = api
    answers, failures = drive(schema, mode, EXAMPLES, known if mode is GenerationMode.POSITIVE else None)
    assert failures == []
    assert answers["5xx"] == 0
    # it was let in: had every request been refused at the door, nothing would have been tried
    assert answers["401"] < answers.total() / 20
    wanted = "2xx" if mode is GenerationMode.POSITIVE else "422"
    assert answers[wanted] > 20, answers


def test_a_server_that_does_not_keep_to_its_schema_is_noticed() -> None:
    app = FastAPI()

    @app.get("/items/{number}", response_model=dict[str, int])
    def item(number: int) -> Any:
        return JSONResponse({"number": "one"}) if number % 2 else JSONResponse({}, 500)

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    _, failures = drive(schema, GenerationMode.POSITIVE, 5)
    assert "Server error" in str(failures) or "schema" in str(failures)
