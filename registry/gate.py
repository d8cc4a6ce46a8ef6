"""The gate: a pure function from a policy and an evaluation report to a verdict with every reason.

Called inside the promotion's transaction; also by whoever wants to know beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from registry.canonical import finite
from registry.errors import PolicyInvalid
from registry.names import is_digest

__all__ = [
    "MOST_APPROVALS",
    "Champion",
    "Check",
    "GateResult",
    "Policy",
    "check",
    "effective_policy",
    "policy_and_source",
    "recorded_policy",
]

# More people than that never agree on anything; a typo does.
MOST_APPROVALS = 100
# What binary fractions lose in one subtraction; far below what one row of any test weighs.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Policy:
    """What a version must have shown before an alias may point at it. Scores are fractions.

    Args:
        min_task_delta: Least gain on the task over the best prompting baseline.
        task_interval_excludes_zero: The gain's 95 % interval must lie above zero.
        max_suite_drop: Most that a general suite may have lost: the low end of each paired interval is at least minus
            this.
        min_rows: Least number of task rows measured.
        min_suites: Least number of general suites measured; an unmeasured loss is not a small loss.
        require_evaluation: False lets a base pass without a task report: nothing was trained into it. Of every other
            kind, which was made of something, one is asked whatever a policy says.
        max_champion_loss: Most that the task score may lie below that of the version that the alias holds now, where
            both were measured with the same metric on the same test; None compares nothing.
        require_champion_comparison: True refuses a version that can't be compared with the one that the alias holds.
        required_approvals: How many people have to approve that an alias takes the version (`registry/approvals.py`);
            a protected alias may ask for more. Asked where an alias moves, not by whoever only judges a report.
        required_signature: Id of the ed25519 key, as `registry sign` names it, without whose signature the version
            isn't served. Asked where it is served (`registry/standing.py`), not where an alias moves.

    Raises:
        PolicyInvalid: A value has the wrong type or can't be met by any report.
    """

    min_task_delta: float = 0.0
    task_interval_excludes_zero: bool = True
    max_suite_drop: float = 0.05
    min_rows: int = 50
    min_suites: int = 1
    require_evaluation: bool = True
    max_champion_loss: float | None = 0.0
    require_champion_comparison: bool = False
    required_approvals: int = 0
    required_signature: str | None = None

    def __post_init__(self) -> None:
        for name in ("min_task_delta", "max_suite_drop"):
            if finite(getattr(self, name)) is None:
                raise PolicyInvalid(
                    f"policy: {name} is {getattr(self, name)!r}",
                    allowed="a finite number, such as 0.001 (YAML takes 1e-3 for a text)",
                )
        if self.max_suite_drop < 0:
            raise PolicyInvalid(f"policy: max_suite_drop is {self.max_suite_drop}", allowed="0 or more, as a fraction")
        loss = self.max_champion_loss
        if loss is not None and (finite(loss) is None or loss < 0):
            raise PolicyInvalid(
                f"policy: max_champion_loss is {loss!r}", allowed="0 or more, as a fraction, or null to compare nothing"
            )
        for name in ("min_rows", "min_suites", "required_approvals"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise PolicyInvalid(f"policy: {name} is {value!r}", allowed="a whole number, 0 or more")
        if self.required_approvals > MOST_APPROVALS:
            raise PolicyInvalid(
                f"policy: required_approvals is {self.required_approvals}", allowed=f"0 to {MOST_APPROVALS}"
            )
        for name in ("task_interval_excludes_zero", "require_evaluation", "require_champion_comparison"):
            if not isinstance(getattr(self, name), bool):
                raise PolicyInvalid(f"policy: {name} is {getattr(self, name)!r}", allowed="true or false")
        key = self.required_signature
        if key is not None and not is_digest(key):
            raise PolicyInvalid(
                f"policy: required_signature is {key!r}",
                allowed="64 lower-case hex digits, a key's id, or null for no key",
            )
        if self.require_champion_comparison and loss is None:
            raise PolicyInvalid(
                "policy: require_champion_comparison is true and max_champion_loss is null",
                allowed="a max_champion_loss of 0 or more where the comparison is required",
            )

    @classmethod
    def from_dict(cls, values: object) -> Policy:
        """Read a policy from a YAML or JSON document; absent keys keep their defaults.

        Raises:
            PolicyInvalid: Not a mapping, an unknown key (names the nearest known one), or an impossible value.
        """
        known = [f.name for f in fields(cls)]
        if not isinstance(values, Mapping):
            raise PolicyInvalid(f"policy is a {type(values).__name__}", allowed=f"a mapping with {', '.join(known)}")
        for key in values:
            if key not in known:
                import difflib  # only a mistake needs it, and look-ups load this module

                near = difflib.get_close_matches(str(key), known, n=1)
                raise PolicyInvalid(
                    f"policy: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                    allowed=", ".join(known),
                )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the policy as plain JSON, defaults included; what was approved without a key reads as it did."""
        return {name: value for name, value in vars(self).items() if value is not None or name != "required_signature"}


@dataclass(frozen=True)
class Check:
    """One condition: what was measured, what was asked, and why it failed, or why it passed without being measured."""

    name: str
    passed: bool
    value: float | int | None
    bound: float | int | None
    reason: str | None


@dataclass(frozen=True)
class GateResult:
    """The verdict: passed only if every check passed; `reasons` are those of the failed ones."""

    passed: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON."""
        return {"passed": self.passed, "reasons": list(self.reasons), "checks": [dict(vars(c)) for c in self.checks]}

    def with_check(self, more: Check) -> GateResult:
        """Return the verdict with one more check."""
        reasons = self.reasons if more.passed or more.reason is None else (*self.reasons, more.reason)
        return GateResult(self.passed and more.passed, reasons, (*self.checks, more))


@dataclass(frozen=True)
class Champion:
    """What an alias holds while another version asks for it: its `name:vN` and its newest report, if it has one."""

    label: str
    report: Mapping[str, Any] | None


def recorded_policy(report: Mapping[str, Any] | None) -> Policy | None:
    """Return the policy that a report was recorded with, or None where it names none.

    Raises:
        PolicyInvalid: What stands there is no policy.
    """
    found = None if report is None else report.get("policy")
    return None if found is None else Policy.from_dict(found)


def effective_policy(given: Policy | None, report: Mapping[str, Any] | None) -> Policy:
    """Return the policy that a report is judged by: the caller's, the one that it was recorded with, or the defaults.

    Args:
        given: What the caller names; None leaves it to the report.
        report: The version's newest report; None where it has none.

    Raises:
        PolicyInvalid: What the report has in its policy's place is none, and the caller names none.
    """
    return policy_and_source(given, report)[0]


def policy_and_source(given: Policy | None, report: Mapping[str, Any] | None) -> tuple[Policy, str]:
    """Return `effective_policy` and whose it is: `caller`, `evaluation` (that of the report) or `defaults`."""
    if given is not None:
        return given, "caller"
    recorded = recorded_policy(report)
    return (Policy(), "defaults") if recorded is None else (recorded, "evaluation")


def check(
    policy: Policy, report: Mapping[str, Any] | None, champion: Champion | None = None, *, kind: str
) -> GateResult:
    """Hold a report against a policy.

    Args:
        policy: What is asked.
        report: `{"task": {"n", "delta", "low", "high", "metric", "tuned", "test_digest", ...}, "tax": [{"suite",
            "low", ...}]}`; None where nothing was measured. Values that are absent, NaN or of the wrong type fail
            their check.
        champion: The other version that the alias holds now; None where it holds nothing or this very version.
        kind: Of the version, as in its manifest.

    Returns:
        Every check that was made, and the reasons of those that failed.
    """
    waived = not policy.require_evaluation and kind == "base"
    if report is None:
        missing = "no evaluation was recorded for exactly this digest" + _not_waived(policy, kind)
        checks = [_verdict("evaluation", waived, None, None, missing)]
    else:
        task = report.get("task")
        if isinstance(task, Mapping):
            checks = _task_checks(policy, task)
        else:
            missing = "the evaluation has no task score" + _not_waived(policy, kind)
            checks = [_verdict("task", waived, None, None, missing)]
        checks += _suite_checks(policy, report.get("tax"))
    if champion is not None and policy.max_champion_loss is not None:
        checks.append(_champion_check(policy, policy.max_champion_loss, report, champion))
    reasons = tuple(c.reason for c in checks if not c.passed and c.reason is not None)
    return GateResult(passed=all(c.passed for c in checks), reasons=reasons, checks=tuple(checks))


def _not_waived(policy: Policy, kind: str) -> str:
    return "" if policy.require_evaluation else f", which a policy can't do without for one of kind {kind}"


def _task_checks(policy: Policy, task: Mapping[str, Any]) -> list[Check]:
    rows = task.get("n") if type(task.get("n")) is int else None
    delta, low, high = (finite(task.get(key)) for key in ("delta", "low", "high"))
    checks = [
        _verdict(
            "task_rows",
            rows is not None and rows >= policy.min_rows,
            rows,
            policy.min_rows,
            f"the task was measured on {rows} rows, the policy asks for {policy.min_rows}",
        ),
        _verdict(
            "task_delta",
            delta is not None and delta >= policy.min_task_delta,
            delta,
            policy.min_task_delta,
            f"the task gained {_points(delta)}, the policy asks for {_points(policy.min_task_delta)}",
        ),
    ]
    if policy.task_interval_excludes_zero:
        sound = low is not None and high is not None and low <= high
        checks.append(
            _verdict(
                "task_interval",
                sound and low is not None and low > 0,
                low,
                0.0,
                f"the gain's 95 % interval [{_points(low)}, {_points(high)}] does not lie above zero",
            )
        )
    return checks


def _suite_checks(policy: Policy, tax: object) -> list[Check]:
    listed = list(tax) if isinstance(tax, Sequence) and not isinstance(tax, str) else []
    suites: list[Mapping[str, Any]] = [s if isinstance(s, Mapping) else {} for s in listed]
    names = {str(s.get("suite")) for s in suites}
    checks = [
        _verdict(
            "suites",
            len(names) >= policy.min_suites,
            len(names),
            policy.min_suites,
            f"{len(names)} general suites were measured, the policy asks for {policy.min_suites}",
        )
    ]
    bound = -policy.max_suite_drop
    for suite in suites:
        low = finite(suite.get("low"))
        checks.append(
            _verdict(
                f"suite:{suite.get('suite')}",
                low is not None and low >= bound,
                low,
                bound,
                f"suite {suite.get('suite')} may have lost as much as {_points(None if low is None else -low)}, "
                f"the policy allows {_points(policy.max_suite_drop)}",
            )
        )
    return checks


def _champion_check(policy: Policy, loss: float, report: Mapping[str, Any] | None, champion: Champion) -> Check:
    challenger_task, champion_task = (_mapping(_mapping(r).get("task")) for r in (report, champion.report))
    tuned, best = finite(challenger_task.get("tuned")), finite(champion_task.get("tuned"))
    obstacle = _incomparable(challenger_task, champion_task, best)
    if obstacle is not None:
        required = policy.require_champion_comparison
        reason = f"could not be compared with {champion.label}: {obstacle}"
        reason += ", and the policy asks for the comparison" if required else ""
        return Check("champion", not required, tuned, None, reason)
    assert best is not None
    return _verdict(
        "champion",
        tuned is not None and tuned >= best - loss - _ROUNDING,
        tuned,
        best - loss,
        f"the task score is {_percent(tuned)}, that of {champion.label} is {_percent(best)}, "
        f"the policy allows a loss of {_points(loss)}",
    )


def _incomparable(challenger: Mapping[str, Any], champion: Mapping[str, Any], best: float | None) -> str | None:
    """Say why two task scores can't be compared, or return None where they can."""
    if not challenger:
        return "it has no task score"
    if not champion or best is None:
        return "that version has no task score"
    for key, what in (("metric", "metric"), ("test_digest", "test")):
        mine, theirs = challenger.get(key), champion.get(key)
        if mine != theirs and None not in (mine, theirs):
            return f"its {what} is {_short(mine)}, that version's is {_short(theirs)}"
        if mine != theirs or (mine is None and key == "metric"):
            return f"its report names no {what}" if mine is None else f"that version's report names no {what}"
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else text[:12]


def _percent(value: float | None) -> str:
    return "nothing measurable" if value is None else f"{100 * value:.1f} %"


def _verdict(name: str, passed: bool, value: float | None, bound: float | None, reason: str) -> Check:
    return Check(name=name, passed=passed, value=value, bound=bound, reason=None if passed else reason)


def _points(value: float | None) -> str:
    return "nothing measurable" if value is None else f"{100 * value:.1f} points"
