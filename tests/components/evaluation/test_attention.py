from __future__ import annotations

import torch

from components.evaluation.attention import prefill_places


def test_each_token_of_a_piece_sees_the_cache_itself_and_what_is_before_it() -> None:
    places, mask = prefill_places(2, 3, dtype=torch.bfloat16, device="cpu")
    assert places.tolist() == [[2, 3, 4]]
    assert (mask.dtype, mask.shape) == (torch.bfloat16, (1, 1, 3, 5))
    assert (mask[0, 0] == 0).tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, True, True, True],
    ]
    assert bool(torch.isfinite(mask).all())
