"""A mirror fed from the outbox now and then, which fails in between and must come to say what the registry says."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from registry.mirror import mirror
from tests.registry.machine.watched import Watched


class Mirroring(Watched):
    """Rules for the mirror; its place is a file, and what it was told is one."""

    @rule(
        most=st.sampled_from([1, 4, None]),
        failures=st.sampled_from(["", "", "before", "after", "no before", "no no after"]),
    )
    def push(self, most: int | None, failures: str) -> None:
        self.target.failures = failures.split()
        done = mirror(self.registry, self.target, most=most)
        left, self.target.failures = self.target.failures, []
        failed = bool(failures) and not left
        assert (done.error is not None) == failed
        self.tally["mirror failed"] += failed
        if done.position == done.head and not failed:
            self.check_mirror()

    def check_mirror(self) -> None:
        """Hold what the mirror says against the model, once it has been told everything."""
        self.tally["mirror caught up"] += 1
        expected: dict[tuple[str, Any], Any] = {("base", 1): [self.base.digest, None, "active"]}
        for version in self.adapters:
            newest = self.model.newest(version.version)
            state = self.model.states[version.version]
            expected["m", version.version] = [version.digest, None if newest is None else newest.digest, state]
        if self.model.champion is not None:
            expected["m", "champion"] = self.model.champion
        assert self.target.holds == expected

    def check_at_the_end(self) -> None:
        done = mirror(self.registry, self.target)
        assert (done.error, done.position) == (None, done.head)
        self.check_mirror()
        super().check_at_the_end()
