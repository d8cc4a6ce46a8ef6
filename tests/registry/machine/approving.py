"""The alias protected: approvals given, taken back and used, the protection changed in between."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from registry.errors import ApprovalsMissing
from tests.registry.machine.acts import POLICY, Acts
from tests.registry.machine.model import PEOPLE, POLICIES, Asked

ACT = st.sampled_from(["promote", "promote", "promote", "demote", "unprotect"])
TARGET = st.sampled_from([(0, False), (0, False), (1, False), (1, True), (2, True)])


class Approving(Acts):
    """Rules for those who approve and for those who protect."""

    @rule(
        data=st.data(),
        act=ACT,
        policy=POLICY,
        to=TARGET,
        people=st.sampled_from([*((one,) for one in PEOPLE), PEOPLE[:2], *[PEOPLE[1:]] * 3]),
    )
    def approve(
        self, data: st.DataObject, act: str, policy: Asked | None, to: tuple[int, bool], people: tuple[str, ...]
    ) -> None:
        held = [version for version in self.adapters if version.version == self.model.champion]
        before = [v for v in self.adapters if v.version in self.model.history and v not in held]
        version = self.choose(data, held if act == "demote" else self.promotable() + before)
        if version in before and data.draw(st.booleans()):
            policy = None  # as a roll-back asks
        for person in people:
            self._approve(version.version, act, policy, to, person)

    @rule(
        data=st.data(),
        act=st.sampled_from(["promote", "promote", "rollback", "rollback", "rollback", "demote", "unprotect"]),
        policy=POLICY,
        required=st.integers(0, 2),
        at_once=st.sampled_from([True, True, False]),
    )
    def ask_everyone(self, data: st.DataObject, act: str, policy: Asked | None, required: int, at_once: bool) -> None:
        """All approve, one after the other, until they are enough: chance alone seldom comes to that."""
        model, nothing = self.model, (0, False)
        if required > model.protection[0]:
            self._protect(required, False)
        could = {
            "promote": [n for n in model.states if n != model.champion and model.refused_by_gate(n) is None],
            "rollback": [] if model.champion is None else sorted(set(model.history) - {None, model.champion}),
            "demote": [] if model.champion is None else [model.champion],
            "unprotect": [1] if model.protection[0] else [],
        }
        act = act if could[act] else "promote"
        if not could[act]:
            return
        number = data.draw(st.sampled_from(could[act]))
        policy = policy if act == "promote" else None
        asked = "promote" if act == "rollback" else act  # which is what a roll-back is approved as
        matter = model.matter(asked, number, policy, nothing)
        needed = model.protection[0] if act == "rollback" else model.needed(matter)
        for person in PEOPLE:
            if len(model.people(matter)) < needed:
                self._approve(number, asked, policy, nothing, person)
        if not at_once:
            return
        if act == "promote":
            self._promote(number, policy, None)
        elif act == "rollback":
            self._rollback_to(number)
        elif act == "demote":
            self._demote()
        else:
            self._protect(*nothing)

    def _approve(self, number: int, act: str, policy: Asked | None, to: tuple[int, bool], person: str) -> None:
        matter = self.model.matter(act, number, policy, to)
        required, own = to if act == "unprotect" else (0, False)
        rows = self.registry.outbox_head()
        told, error = self.tried(
            lambda: self.registry.approve(
                f"m:v{number}", "champion", act=act, policy=None if policy is None else POLICIES[policy],
                required=required, self_approval=own, actor=person,
            )
        )  # fmt: skip
        assert error is self.model.refused_approval(matter, person)
        new = error is None and (matter, person) not in self.model.standing
        # counted, since whoever was killed before a commit leaves a gap in PostgreSQL's numbers
        assert len(self.registry.outbox(after=rows)) == new, "an approval is written once"
        if error is None:
            self.model.standing.add((matter, person))
            assert told.given == self.model.people(matter)
            assert told.required == self.model.needed(matter)

    @rule(data=st.data(), act=ACT, person=st.sampled_from(PEOPLE))
    def withdraw(self, data: st.DataObject, act: str, person: str) -> None:
        version = self.choose(data, self.approved(act))
        found = self.model.withdrawn(act, version.version, person)
        _, error = self.tried(lambda: self.registry.withdraw(version.label, "champion", act=act, actor=person))
        if isinstance(found, set):
            assert error is None
            self.model.standing -= found
        else:
            assert error is found

    @rule(data=st.data(), required=st.integers(0, 2), own=st.booleans())
    def protect(self, data: st.DataObject, required: int, own: bool) -> None:
        approved = sorted(matter.to for matter, _ in self.model.standing if matter.to is not None)
        if approved and data.draw(st.booleans()):
            required, own = data.draw(st.sampled_from(approved))
        self._protect(required, own)

    def _protect(self, required: int, own: bool) -> None:
        refusal = self.model.refused_protection(required, own)
        why = {"actor": "eve", "reason": "r"}
        told, error = self.tried(
            lambda: (
                self.registry.protect("m", "champion", required=required, self_approval=own, **why)
                if required
                else self.registry.unprotect("m", "champion", **why)
            )
        )
        assert error is refusal
        self.tally["refused for want of approvals"] += error is ApprovalsMissing
        if error is None:
            self.tally["protection weakened"] += self.model.is_weaker(required, own)
            self.model.protect(required, own)
            assert (told.required, told.self_approval) == self.model.protection
