from __future__ import annotations

import math
import random

import pytest

from components.errors import InputError
from components.evaluation.statistics import (
    Interval,
    mcnemar_p,
    paired_interval,
    pairs_needed,
    rows_needed,
    score_interval,
    wilson,
)


def paired(won: int, lost: int, n: int) -> Interval:
    base = [0.0] * won + [1.0] * lost + [1.0] * (n - won - lost)
    tuned = [1.0] * won + [0.0] * lost + [1.0] * (n - won - lost)
    return paired_interval(base, tuned)


def test_wilson_matches_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81/263 and 0/20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_tango_bounds_are_where_the_constrained_score_test_turns() -> None:
    """Against the definition: the likelihood maximised on a grid under each difference, no closed form."""
    won, lost, n = 9, 3, 40

    def statistic(delta: float) -> float:
        best, best_q = -math.inf, 0.0
        for step in range(1, 20_000):
            q = step / 20_000
            p = q + delta
            rest = 1 - p - q
            if p <= 0 or rest <= 0:
                continue
            value = won * math.log(p) + lost * math.log(q) + (n - won - lost) * math.log(rest)
            if value > best:
                best, best_q = value, q
        return (won - lost - n * delta) / math.sqrt(n * (2 * best_q + delta * (1 - delta)))

    found = paired(won, lost, n)
    assert found.delta == pytest.approx(0.15)
    assert statistic(found.low) == pytest.approx(1.95996, abs=2e-3)
    assert statistic(found.high) == pytest.approx(-1.95996, abs=2e-3)


@pytest.mark.parametrize(("p_won", "p_lost"), [(0.3, 0.05), (0.1, 0.1), (0.02, 0.01), (0.5, 0.3), (0.2, 0.0)])
@pytest.mark.parametrize("n", [12, 40])
def test_paired_interval_covers_the_truth_at_small_samples(p_won: float, p_lost: float, n: int) -> None:
    """Exact coverage: the probability of every table whose interval holds the true difference."""
    covered = 0.0
    for won in range(n + 1):
        for lost in range(n + 1 - won):
            rest = n - won - lost
            ways = math.comb(n, won) * math.comb(n - won, lost)
            chance = ways * p_won**won * p_lost**lost * (1 - p_won - p_lost) ** rest
            if chance > 1e-9:
                interval = paired(won, lost, n)
                covered += chance * (interval.low <= p_won - p_lost <= interval.high)
    # nominally 0.95; the worst of these is 0.928, where only one side ever wins
    assert covered > (0.925 if p_lost == 0 else 0.94)


def test_interval_excludes_zero_only_when_wins_clearly_outnumber_losses() -> None:
    assert paired(10, 1, 64).low > 0
    assert paired(3, 2, 64).low < 0 < paired(3, 2, 64).high
    assert paired(0, 0, 64).low < 0 < paired(0, 0, 64).high, "no difference seen is not a difference of exactly zero"
    assert paired(0, 0, 640).high < paired(0, 0, 64).high
    everything = paired(8, 0, 8)
    assert (everything.delta, everything.high) == (1.0, 1.0)
    assert 0 < everything.low < 1


def test_paired_interval_turns_round_with_the_sides() -> None:
    pick = random.Random(0)
    base = [float(pick.random() < 0.3) for _ in range(50)]
    tuned = [float(pick.random() < 0.6) for _ in range(50)]
    forth, back = paired_interval(base, tuned), paired_interval(tuned, base)
    assert (forth.delta, forth.low, forth.high) == pytest.approx((-back.delta, -back.high, -back.low))


def test_scores_between_zero_and_one_are_bootstrapped_with_a_seed() -> None:
    pick = random.Random(1)
    base = [pick.random() for _ in range(60)]
    tuned = [value + 0.2 + pick.gauss(0, 0.1) for value in base]
    found = paired_interval(base, tuned, seed=7)
    assert found == paired_interval(base, tuned, seed=7)
    assert found.low < 0.2 < found.high
    assert found.high - found.low < 0.1
    assert score_interval([0.5, 0.5]).low == 0.5


def test_score_interval_of_binary_scores_is_wilson() -> None:
    found = score_interval([1.0, 0.0, 0.0, 0.0])
    assert (found.delta, found.low, found.high) == (0.25, *wilson(1, 4))


def test_intervals_that_hold_at_once_are_those_of_a_narrower_level() -> None:
    # 1 - 0.05 / 5 two-sided is the 99 % level: Newcombe's formula with z = 2.5758
    z, share, n = 2.5758293035489, 0.3, 40
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert wilson(12, n, 5) == pytest.approx((centre - half, centre + half))
    base, tuned = [0.0] * 9 + [1.0] * 31, [1.0] * 37 + [0.0] * 3
    alone, at_once = paired_interval(base, tuned), paired_interval(base, tuned, comparisons=5)
    assert alone.delta == at_once.delta
    assert at_once.low < alone.low < alone.high < at_once.high
    spread = [random.Random(n).random() for n in range(40)]
    assert score_interval(spread, comparisons=5).low < score_interval(spread).low
    for needed in (pairs_needed, rows_needed):
        few, many = needed(0.5, 0.3), needed(0.5, 0.3, 5)
        assert few is not None
        assert many is not None
        assert many > few


@pytest.mark.parametrize("n", [20, 50])
def test_intervals_of_several_paired_differences_hold_at_once(n: int) -> None:
    pick = random.Random(n)
    held, tries = 0, 400
    for _ in range(tries):
        hard = [pick.gauss(0, 1) for _ in range(n)]
        # one reference and four candidates of the same skill, who find the same rows hard
        scores = [[float(pick.gauss(0, 1) > row) for row in hard] for _ in range(5)]
        found = [paired_interval(scores[0], other, comparisons=4) for other in scores[1:]]
        held += all(interval.low <= 0 <= interval.high for interval in found)
    # 95 % of 400 are 380, give or take 4.4; Bonferroni is above
    assert held >= 370


def test_mcnemar_is_the_exact_binomial_test() -> None:
    base, tuned = [0.0] * 8 + [1.0] + [1.0] * 5, [1.0] * 8 + [0.0] + [1.0] * 5
    assert mcnemar_p(base, tuned) == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar_p([1.0, 0.0], [1.0, 0.0]) == 1.0


def test_sample_that_would_decide_has_the_power_it_promises() -> None:
    p_won, p_lost = 0.25, 0.10
    n = pairs_needed(p_won + p_lost, p_won - p_lost)
    assert n is not None
    pick = random.Random(2)
    decided = 0
    for _ in range(400):
        draws = [pick.random() for _ in range(n)]
        won = sum(draw < p_won for draw in draws)
        lost = sum(p_won <= draw < p_won + p_lost for draw in draws)
        decided += paired(won, lost, n).low > 0
    assert 0.74 < decided / 400 < 0.88
    assert pairs_needed(0.2, 0.0) is None


def test_rows_needed_grows_as_the_share_nears_the_bound() -> None:
    near, far = rows_needed(0.88, 0.9), rows_needed(0.6, 0.9)
    assert near is not None
    assert far is not None
    assert far < 30 < near
    low, _ = wilson(round(0.6 * far), far)
    assert wilson(round(0.6 * far), far)[1] < 0.9
    assert low < 0.6
    assert rows_needed(0.9, 0.9) is None


def test_unpaired_scores_are_refused() -> None:
    with pytest.raises(InputError, match="2 scores can't be paired with 1"):
        paired_interval([1.0, 0.0], [1.0])
