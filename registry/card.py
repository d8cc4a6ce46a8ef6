"""The model card of a version: README.md in Hugging Face's form, from its manifest and its newest evaluation alone.

Front matter in YAML with the hub's metadata names (hub-docs, modelcard.md), then text. Nothing stands in it that
nobody recorded: a version whose energy was not counted says why, or nothing. Written into exports.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.canonical import finite
from registry.entities import Evaluation, Version
from registry.errors import PolicyInvalid
from registry.gate import check, recorded_policy

if TYPE_CHECKING:
    from registry.store import Registry

__all__ = ["HUB_LICENCES", "card_of", "front_matter", "hub_id", "made_from", "model_card"]

# How the hub calls what a version is to its base; a base has none.
_RELATIONS = {"adapter": "adapter", "full": "finetune", "merged": "merge", "quantized": "quantized"}
_LIBRARIES = {"adapter": "peft", "base": "transformers", "full": "transformers", "merged": "transformers"}
# What the hub knows by an identifier; others are "other", with a name.
_IDENTIFIERS = (
    "apache-2.0 mit openrail openrail++ bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 "
    "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 "
    "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl "
    "gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 "
    "odc-by odbl openmdw-1.0 osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license "
    "fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma "
    "unknown"
)
HUB_LICENCES = frozenset(_IDENTIFIERS.split())
_HUB_ORIGIN = re.compile(r"hub ([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*) at [0-9a-f]{40}")
_LICENCE_FILE = re.compile(r"(LICEN[CS]E|NOTICE)(\.(md|txt))?", re.IGNORECASE)


def hub_id(base: Version | None) -> str | None:
    """Return the hub's id of a base that was fetched from there, or None."""
    found = None if base is None else _HUB_ORIGIN.fullmatch(str(base.manifest.metadata.get("origin")))
    return found[1] if found else None


def card_of(registry: Registry, version: Version) -> str:
    """Return a registered version's model card."""
    reports = registry.evaluations(version.digest)
    return model_card(version, reports[0] if reports else None, made_from(registry, version))


def made_from(registry: Registry, version: Version) -> Version | None:
    """Return the parent that a version is told against: its base, else what it was made from."""
    parents = {parent.role: parent.digest for parent in reversed(version.manifest.parents)}
    found = parents.get("base") or parents.get("source") or next(iter(parents.values()), None)
    return None if found is None else registry.resolve(found)


def front_matter(version: Version, evaluation: Evaluation | None, base: Version | None) -> dict[str, Any]:
    """Return a card's metadata under the hub's names.

    Args:
        version: The version.
        evaluation: Its newest evaluation, if it has one.
        base: Its parent with role "base", or what it was made from; None for a base.
    """
    manifest, metadata = version.manifest, version.manifest.metadata
    found: dict[str, Any] = _licence(version)
    if version.kind in _LIBRARIES:
        found["library_name"] = _LIBRARIES[version.kind]
    if version.kind != "head":
        found["pipeline_tag"] = "text-generation"
    method = metadata.get("method") or str((manifest.peft_config or {}).get("peft_type") or "").lower()
    quantized = (manifest.quantization or {}).get("method")
    tags = ["tunewright", version.kind, *(str(tag) for tag in (method, quantized) if tag)]
    found["tags"] = list(dict.fromkeys(map(_line, tags)))
    if (origin := hub_id(base)) is not None:
        found["base_model"] = origin
        if version.kind in _RELATIONS:
            found["base_model_relation"] = _RELATIONS[version.kind]
    results = list(_results(evaluation))
    metrics = [result["metrics"][0]["type"] for result in results]
    if results:
        found["metrics"] = list(dict.fromkeys(metrics))
        found["model-index"] = [{"name": version.label, "results": results}]
    return found


def model_card(version: Version, evaluation: Evaluation | None, base: Version | None) -> str:
    """Return the text of a version's README.md.

    Args:
        version: The version.
        evaluation: Its newest evaluation, if it has one.
        base: Its parent with role "base", or what it was made from; None for a base.
    """
    import yaml

    # one line a value: a line of dashes inside one would end the front matter for whoever looks for its end
    front = yaml.safe_dump(
        front_matter(version, evaluation, base),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=math.inf,
    )
    sections = [
        _introduction(version, base),
        _scores(evaluation, version.kind),
        _method(version),
        _data(version),
        _licences(version, base),
        _provenance(version, evaluation),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _licence(version: Version) -> dict[str, Any]:
    licence = version.manifest.licence or "unknown"
    if licence.lower() in HUB_LICENCES:
        return {"license": licence.lower()}
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-.") or "unnamed"
    file = next((path for path in version.manifest.files if _LICENCE_FILE.fullmatch(path)), None)
    return {"license": "other", "license_name": name, **({"license_link": file} if file else {})}


def _results(evaluation: Evaluation | None) -> Iterator[dict[str, Any]]:
    """Yield the scores of a report as the hub's model-index has them; a report may be anybody's, and lack any."""
    report = evaluation.report if evaluation is not None else {}
    task = report.get("task")
    if isinstance(task, Mapping) and finite(task.get("tuned")) is not None:
        metric = _line(task.get("metric") or "score")
        digest = _line(task.get("test_digest") or "")[:12]
        subset = f", subset {_line(task['subset'])}" if task.get("subset") else ""
        yield {
            "task": {"type": "text-generation", "name": "held-out rows of the task"},
            "dataset": {"type": f"test-{digest or 'unnamed'}", "name": f"held-out rows{subset}", "split": "test"},
            "metrics": [{"type": metric, "value": task["tuned"], "name": _counted(metric, task)}],
        }
    for suite in _rows(report.get("tax")):
        if finite(suite.get("tuned")) is not None:
            metric = _line(suite.get("metric") or "accuracy")
            yield {
                "task": {"type": "text-generation", "name": "general ability"},
                "dataset": {"type": _line(suite.get("suite")), "name": _line(suite.get("suite"))},
                "metrics": [{"type": metric, "value": suite["tuned"], "name": _counted(metric, suite)}],
            }


def _counted(metric: str, found: Mapping[str, Any]) -> str:
    return metric if found.get("n") is None else f"{metric}, n={_line(found['n'])}"


def _introduction(version: Version, base: Version | None) -> str:
    metadata = version.manifest.metadata
    what = {
        "base": "A base model.",
        "adapter": "An adapter: it is loaded beside exactly the base that is named here.",
        "full": "Whole weights, finetuned.",
        "merged": "Whole weights, merged.",
        "quantized": "Whole weights as integers, in Tunewright's own files.",
        "head": "A head on a frozen base; Tunewright serves it.",
    }.get(version.kind, f"A version of kind {version.kind}.")
    lines = [f"# {_cell(version.label)}", "", what, ""]
    if base is not None:
        name = hub_id(base) or base.name
        lines.append(f"- Base: {_cell(name)}, fingerprint `{base.base_fingerprint}`")
    lines.append(f"- Version digest: `{version.digest}`")
    if metadata.get("origin"):
        lines.append(f"- Origin: {_cell(metadata['origin'])}")
    if (recipe := version.manifest.quantization) is not None:
        made = f", {_cell(recipe['made_by'])}" if recipe.get("made_by") else ", made when the base is loaded"
        lines.append(f"- Quantization: {_cell(recipe.get('method'))}{made}")
    if isinstance(scaling := metadata.get("rope_scaling"), Mapping):
        told = f"{_cell(scaling.get('type'))}:{_cell(scaling.get('factor'))}"
        lines.append(f"- RoPE scaling that it was trained under: {told}. Loaders that don't apply it answer otherwise.")
    if metadata.get("max_new_tokens"):
        lines.append(f"- Longest answer in its evaluation: {_cell(metadata['max_new_tokens'])} tokens")
    return "\n".join(lines)


def _scores(evaluation: Evaluation | None, kind: str) -> str:
    if evaluation is None:
        return "## Evaluation\n\nNothing was measured of these weights."
    report = evaluation.report
    parts = ["## Evaluation"]
    task = report.get("task")
    if isinstance(task, Mapping):
        against = f", against {_cell(task['baseline'])} on the base" if task.get("baseline") else ""
        head = ["rows", "n", "base", "tuned", "difference", "95 % interval"]
        rows = [_compared(str(task.get("subset") or "all"), task)]
        rows += [
            _compared(str(s.get("subset")), s)
            for s in _rows(task.get("subsets"))
            if s.get("subset") != task.get("subset")
        ]
        parts.append(f"{_cell(task.get('metric'))} on held-out rows{against}.\n\n{_table(head, rows)}")
    if tax := _rows(report.get("tax")):
        head = ["suite", "n", "base", "tuned", "difference", "95 % interval"]
        parts.append(
            "Alignment tax: what general suites say of the base and of these weights, on the same rows.\n\n"
            + _table(head, [_compared(str(s.get("suite")), s) for s in tax])
        )
    try:
        policy = recorded_policy(report)
    except PolicyInvalid as error:
        parts.append(f"The policy in its report can't be used: {_cell(error.problem)}.")
        policy = None
    if policy is not None:
        verdict = check(policy, report, kind=kind)
        said = "satisfied" if verdict.passed else "not satisfied: " + "; ".join(map(_cell, verdict.reasons))
        parts.append(f"The policy that it was measured for is {said}.")
    return "\n\n".join(parts)


def _method(version: Version) -> str:
    metadata = version.manifest.metadata
    training, tactics = _mapping(metadata.get("training")), _mapping(metadata.get("tactics"))
    if not metadata.get("method") and not training:
        return ""
    lines = [f"## Method\n\nMethod: {_cell(metadata.get('method') or 'unknown')}."]
    if training.get("steps") is not None:
        lines[0] += (
            f" {_count(training['steps'])} steps over {_count(training.get('tokens'))} tokens of "
            f"{_count(training.get('rows'))} rows; {_count(training.get('trainable_parameters'))} of "
            f"{_count(training.get('total_parameters'))} parameters trained."
        )
    settings = [[key, _mapping(rule).get("value"), _mapping(rule).get("source")] for key, rule in tactics.items()]
    if settings:
        lines.append(_table(["setting", "value", "from"], settings))
    if isinstance(teacher := metadata.get("teacher"), Mapping):
        lines.append(f"Teacher: {_cell(teacher.get('name'))}, licence {_cell(teacher.get('licence'))}.")
    time, memory = _mapping(metadata.get("time")), _mapping(metadata.get("memory"))
    if finite(time.get("measured_seconds")) is not None:
        lines.append(f"Training took {time['measured_seconds']:,.0f} s.")
    if finite(memory.get("measured_bytes")) is not None:
        lines.append(f"Peak of memory: {memory['measured_bytes'] / 2**30:.2f} GiB.")
    energy = _mapping(metadata.get("energy"))
    if (kwh := finite(energy.get("kwh"))) is not None:
        seconds, counters = finite(energy.get("seconds")), energy.get("counters")
        lines.append(
            f"Energy: {kwh:.3g} kWh"
            + ("" if seconds is None else f" in {seconds:,.0f} s, loading and checks among them")
            + (f", counted by {_cell(', '.join(map(str, counters)))}" if isinstance(counters, Sequence) else "")
            + "; what else ran on these devices meanwhile is in it."
        )
    elif energy.get("unknown"):
        lines.append(f"Energy: unknown; {_cell(energy['unknown'])}.")
    return "\n\n".join(lines)


def _data(version: Version) -> str:
    digests = version.manifest.data_digests
    if not digests:
        return ""
    return "## Data\n\n" + _table(["file", "sha256"], [[path, digest] for path, digest in sorted(digests.items())])


def _licences(version: Version, base: Version | None) -> str:
    rows = [["these weights", version.manifest.licence or "unknown"]]
    if base is not None:
        rows.append([f"base {base.name}", base.manifest.licence or "unknown"])
    if version.manifest.data_digests:
        rows.append(["data", version.manifest.metadata.get("data_licence") or "unknown"])
    return "## Licences\n\n" + _table(["of", "licence"], rows)


def _provenance(version: Version, evaluation: Evaluation | None) -> str:
    manifest = version.manifest
    rows: list[list[Any]] = [["registered", version.created_at]]
    rows += [[f"parent, {parent.role}", parent.digest] for parent in manifest.parents]
    facts = {"base fingerprint": manifest.base_fingerprint, "tokenizer": manifest.tokenizer_digest,
             "chat template": manifest.template_digest, "seed": manifest.seed, "code": manifest.code_revision,
             "flow run": manifest.flow_run_id, "decision": manifest.decision_digest,
             "memory plan": manifest.plan_digest, "evaluation": evaluation and evaluation.digest}  # fmt: skip
    rows += [[what, value] for what, value in facts.items() if value is not None]
    if manifest.library_versions:
        rows.append(["libraries", ", ".join(f"{name} {v}" for name, v in sorted(manifest.library_versions.items()))])
    return "## Provenance\n\n" + _table(["what", "value"], rows)


def _compared(what: str, found: Mapping[str, Any]) -> list[Any]:
    low, high = _points(found.get("low")), _points(found.get("high"))
    scores = [_percent(found.get(key)) for key in ("base", "tuned")]
    return [what, found.get("n"), *scores, _points(found.get("delta")), f"{low} to {high}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    """Return text for a line of Markdown: a name or a reason is somebody's, and must not end a line or a cell."""
    if value is None:
        return "–"
    text = _line(value)
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text) if not re.fullmatch(r"[\w.:, -]*", text) else text


def _line(value: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings in what should be a list of them; a report may be anybody's."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _count(value: object) -> str:
    return f"{value:,}" if type(value) is int else "–"


def _percent(value: object) -> str:
    known = finite(value)
    return "–" if known is None else f"{100 * known:.1f} %"


def _points(value: object) -> str:
    known = finite(value)
    return "–" if known is None else f"{100 * known:+.1f}"
