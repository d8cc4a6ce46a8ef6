"""What is done with versions and with the alias, and what the model says of each act."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from registry.approvals import Approvals
from registry.errors import AliasNotFound, ApprovalsMissing, RollbackRefused, VersionHeld, VersionRetired
from registry.status import STATES
from tests.registry.machine.model import GIVEN, POLICIES, REGISTRANT, Asked
from tests.registry.machine.watched import Watched

POLICY = st.sampled_from([GIVEN, GIVEN, ("given", 1), None])


class Acts(Watched):
    """Rules for versions, reports, the alias and collections."""

    @rule(key=st.integers(0, 5), seed=st.integers(0, 2))
    def register(self, key: int, seed: int) -> None:
        version = self.registry.register("m", self.manifest(key, seed), self.files(key), actor=REGISTRANT)
        self.note_version(key, version)

    @rule(data=st.data(), passes=st.booleans(), tuned=st.integers(1, 3), asks=st.sampled_from([None, None, None, 0, 1]))
    def evaluate(self, data: st.DataObject, passes: bool, tuned: int, asks: int | None) -> None:
        self.evaluate_as(self.choose(data), passes, tuned, asks)

    @rule(data=st.data(), policy=POLICY, expected=st.none() | st.none() | st.integers(0, 4))
    def promote(self, data: st.DataObject, policy: Asked | None, expected: int | None) -> None:
        self._promote(self.choose(data, self.approved("promote")).version, policy, expected)

    @precondition(lambda self: self.approved_moves())
    @rule(data=st.data())
    def move_as_approved(self, data: st.DataObject) -> None:
        action, number, policy = data.draw(st.sampled_from(self.approved_moves()))
        if action == "promote":
            self._promote(number, policy, None)
        elif action == "rollback":
            self._rollback_to(number)
        else:
            self._demote()

    def approved_moves(self) -> list[tuple[str, int, Asked | None]]:
        """What asks for approvals and has enough of them."""
        model = self.model
        found: set[tuple[str, int, Asked | None]] = set()
        for act, number, _, policy, _ in {matter for matter, _ in model.standing}:
            if act == "promote" and number is not None:
                if model.needed(model.promotion(number, policy)):
                    found |= {(act, number, policy)} if model.refused_promotion(number, policy, None) is None else set()
                if model.protection[0] and model.champion not in (None, number) and number in model.history:
                    found |= {("rollback", number, None)} if model.refused_rollback(number) is None else set()
            if act == "demote" and number == model.champion and model.protection[0]:
                found |= {(act, number, None)} if model.refused_move(model.demotion(number)) is None else set()
        return sorted(found, key=str)

    def _promote(self, number: int, policy: Asked | None, expected: int | None) -> None:
        model = self.model
        refusal = model.refused_promotion(number, policy, expected)
        given = None if policy is None else POLICIES[policy]
        change, error = self.tried(
            lambda: self.registry.promote(
                f"m:v{number}", "champion", policy=given, actor="eve", expected_revision=expected
            )
        )
        assert error is refusal
        self.tally["refused for want of approvals"] += error is ApprovalsMissing
        if error is None:
            assert change.changed == (model.champion != number)
            if change.changed:
                self._note_promotion(number, policy, change.approvals)

    def _note_promotion(self, number: int, policy: Asked | None, told: Approvals | None) -> None:
        """Take over a promotion that was done; nobody but the model says whether enough people had approved it."""
        matter = self.model.promotion(number, policy)
        people, needed = self.model.people(matter), self.model.needed(matter)
        assert len(people) >= needed
        assert (() if told is None else told.given) == (people if needed else ())
        self.tally["promoted with approvals"] += needed > 0
        self.model.move("promote", number)

    @rule(data=st.data(), action=st.sampled_from(["deprecate", "restore", "retire", "retire"]))
    def change_state(self, data: st.DataObject, action: str) -> None:
        version = self.choose(data)
        number, model = version.version, self.model
        before, after = model.states[number], STATES[action]
        change, error = self.tried(lambda: getattr(self.registry, action)(f"m:v{number}", actor="eve", reason="r"))
        if error is VersionHeld:
            assert action == "retire"
            assert number in model.history
        elif error is VersionRetired:
            assert before == "retired"
            assert action == "deprecate" or (action == "restore" and number in model.collected)
        else:
            assert error is None
            assert (change.previous_state, change.state, change.changed) == (before, after, before != after)
            assert after != "retired" or number not in model.history
            model.states[number] = after
            if action == "restore":
                model.collected.discard(number)

    @rule(which=st.sampled_from(["reopen", "retire_base", "demote", "demote"]))
    def do_what_is_rare(self, which: str) -> None:
        getattr(self, f"_{which}")()

    def _reopen(self) -> None:
        self.registry.close()
        self.open()

    def _retire_base(self) -> None:
        """It is held by what was made from it, and is wanted again at once."""
        alive = [number for number, state in self.model.states.items() if state != "retired"]
        _, error = self.tried(lambda: self.registry.retire("base", actor="eve", reason="r"))
        assert error is (VersionHeld if alive else None)
        if error is None:
            self.registry.restore("base", actor="eve", reason="r")

    def _demote(self) -> None:
        model, champion = self.model, self.model.champion
        change, error = self.tried(lambda: self.registry.demote("m", "champion", actor="eve", reason="r"))
        if champion is None:
            assert error is AliasNotFound
            return
        assert error is model.refused_move(model.demotion(champion))
        self.tally["refused for want of approvals"] += error is ApprovalsMissing
        if error is None:
            self.tally["taken away with approvals"] += model.protection[0] > 0
            model.move("demote", None)
            assert change.revision == len(model.history)

    @precondition(lambda self: self.model.champion is not None)
    @rule(data=st.data())
    def rollback_to(self, data: st.DataObject) -> None:
        held = [v for v in self.adapters if v.version in self.model.history and v.version != self.model.champion]
        self._rollback_to(self.choose(data, held).version)

    def _rollback_to(self, to: int) -> None:
        _, error = self.tried(lambda: self.registry.rollback("m", "champion", to=to, actor="eve", reason="r"))
        if to not in self.model.history or to == self.model.champion:
            assert error is RollbackRefused
            return
        self._note_rollback(to, error)

    @precondition(lambda self: self.model.champion is not None)
    @rule()
    def rollback(self) -> None:
        model = self.model
        since = len(model.history) - 1
        while since > 0 and model.history[since - 1] is not None:
            since -= 1
        change, error = self.tried(lambda: self.registry.rollback("m", "champion", actor="eve", reason="r"))
        if len(model.stack) < 2:
            assert error is RollbackRefused, "it went back behind the first version, or a demotion"
            return
        to = model.stack[-2]
        assert to in model.history[since:], "it went back behind a demotion"
        assert error is not None or change.version == to
        self._note_rollback(to, error)

    def _note_rollback(self, to: int, error: type[Exception] | None) -> None:
        assert error is self.model.refused_rollback(to)
        self.tally["refused for want of approvals"] += error is ApprovalsMissing
        if error is None:
            self.tally["rolled back with approvals"] += self.model.protection[0] > 0
            self.model.move("rollback", to)

    @rule(grace=st.sampled_from([0.0, 0.0, 0.0, 3600.0]), dry=st.sampled_from([False, False, False, True]))
    def collect(self, grace: float, dry: bool) -> None:
        here = self.stored()
        garbage = here - self.needed()
        found = self.registry.collect(actor="eve", grace_seconds=grace, dry_run=dry)
        assert found.blobs == (0 if grace else len(garbage))
        assert found.kept == (len(garbage) if grace else 0)
        if not grace and not dry:
            assert self.stored() == here - garbage
            self.note_collected()

    def note_collected(self) -> None:
        here = self.stored()
        for version in self.adapters:
            gone = not here.issuperset(version.manifest.file_digests.values())
            if gone and self.model.states[version.version] == "retired":
                self.model.collected.add(version.version)
