"""Processes that are killed at one of the steps of an act: all of it was done, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from registry import leases
from registry.entities import AuditEntry, Version
from registry.errors import RegistryError
from registry.mirror import mirror
from registry.store import Registry
from tests.registry.machine.acts import Acts
from tests.registry.machine.model import GIVEN, POLICIES, REGISTRANT, Report
from tests.registry.machine.watched import report

ACTS = ("register", "evaluate", "promote", "promote", "rollback", "demote", "retire", "restore", "collect", "approve",
        "protect", "mirror")  # fmt: skip
WHY: dict[str, Any] = {"actor": "eve", "reason": "r"}


class Kills(Acts):
    """The rule that kills, and what it makes of what it finds."""

    # most acts have twelve steps, a registration of new bytes 26, opening the registry some more
    @rule(
        data=st.data(),
        act=st.sampled_from(ACTS),
        deadly=st.integers(1, 13) | st.integers(1, 30),
        opens=st.sampled_from([False, False, False, True]),
    )
    def die(self, data: st.DataObject, act: str, deadly: int, opens: bool) -> None:
        chosen = self.choose(data, self.approved("promote") if act == "promote" else self.promotable())
        key = data.draw(st.integers(0, 5))
        self.salt += 1
        tuned, required, person = 1 + self.salt % 3, self.salt % 3, ("bob", "carol")[self.salt % 2]
        document = report(True, tuned, None, self.salt)
        acknowledged = self.root / "acknowledged"
        acknowledged.unlink(missing_ok=True)
        acts: dict[str, Callable[[Registry], object]] = {
            "register": lambda one: one.register("m", self.manifest(key, 0), self.files(key), actor=REGISTRANT),
            "evaluate": lambda one: one.record_evaluation(chosen.digest, document),
            "promote": lambda one: one.promote(chosen.digest, "champion", policy=POLICIES[GIVEN], actor="eve"),
            "rollback": lambda one: one.rollback("m", "champion", **WHY),
            "demote": lambda one: one.demote("m", "champion", **WHY),
            "retire": lambda one: one.retire(chosen.digest, **WHY),
            "restore": lambda one: one.restore(chosen.digest, **WHY),
            "collect": lambda one: one.collect(actor="eve", grace_seconds=0.0),
            "approve": lambda one: one.approve(chosen.label, "champion", policy=POLICIES[GIVEN], actor=person),
            "protect": lambda one: (
                one.protect("m", "champion", required=required, **WHY)
                if required
                else one.unprotect("m", "champion", **WHY)
            ),
            "mirror": lambda one: mirror(one, self.target),
        }

        def do() -> None:
            self.watching = False
            leases.LEASE_SECONDS = 0.0  # what the dead leave has ended
            with Registry.open(self.root / "registry") if opens else nullcontext(self.registry) as one:
                try:
                    acts[act](one)
                except RegistryError:
                    return
                acknowledged.touch()

        before = self.chain[0]
        # nothing open goes through a fork: the child opens its own connections, and so does whoever asks here again
        self.registry._engine.dispose()
        self.registry._lookup._close_own()
        self.tally["processes"] += 1
        if self.run_and_die(do, self.root / "registry", deadly * 3 if act == "mirror" else deadly):
            self.tally["kills"] += 1
            self._reopen()
        if act == "collect":
            self.note_collected()
        told = self.registry.audit(after=before)
        assert len(told) <= 1
        done = acknowledged.exists()
        if done and act in ("evaluate", "rollback", "demote"):
            assert told, "what was acknowledged is lost"
        matter = self.model.promotion(chosen.version, GIVEN)
        for entry in told:
            if entry.action == "approve":
                assert self.model.refused_approval(matter, person) is None
                self.model.standing.add((matter, person))
            elif entry.action in ("protect", "unprotect"):
                assert self.model.refused_protection(required, False) is None
                assert self.model.protect(required, False)
            else:
                self._note_entry(entry, chosen, key, tuned)
        if done and act == "promote":
            assert self.model.champion == chosen.version, "an acknowledged promotion is lost"
        if done and act == "approve":
            assert (matter, person) in self.model.standing, "an acknowledged approval is lost"
        if done and act == "protect":
            assert self.model.protection == (required, False), "an acknowledged protection is lost"

    def _note_entry(self, entry: AuditEntry, chosen: Version, key: int, tuned: int) -> None:
        """Take over what the act came to, if it might."""
        number, model = chosen.version, self.model
        if entry.action in ("register", "restore") and entry.subject != chosen.label:
            self.note_version(key, self.registry.resolve(entry.subject))
        elif entry.action == "register":
            raise AssertionError(f"{entry.subject} was registered twice")
        elif entry.action == "evaluate":
            model.reports[number].append(Report(self.salt, entry.payload["evaluation"], True, tuned, None))
        elif entry.action == "promote":
            assert model.refused_promotion(number, GIVEN, None) is None
            assert model.champion != number
            model.move("promote", number)
        elif entry.action == "rollback":
            to = entry.payload["version"]
            assert to == model.stack[-2]
            self._note_rollback(to, None)
        elif entry.action == "demote":
            assert model.champion is not None
            assert model.refused_move(model.demotion(model.champion)) is None
            model.move("demote", None)
        elif entry.action == "retire":
            assert number not in model.history
            model.states[number] = "retired"
        elif entry.action == "restore":
            model.states[number] = "active"
            model.collected.discard(number)
        else:
            assert entry.action in ("refuse", "collect")
