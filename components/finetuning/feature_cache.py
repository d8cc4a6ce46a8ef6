"""Features on disk: each row goes through the base once, whatever is tried with them afterwards.

Files of some hundred rows each, named by the digest of all that the numbers depend on: base, tokenizer, template,
pooling, layer, dtype, device, libraries, the code that computes them, and the rows' tokens. A killed pass goes on
behind its last file; rows that are added leave the files before them as they are. Written aside and renamed; a file
that was damaged is told of and made anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import TunewrightError
from components.files import digest_of, sha256_file, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SHARD_ROWS", "CachedFeatures", "FeatureCache"]

# Rows of one file: what a killed pass loses at most.
SHARD_ROWS = 128


@dataclass(frozen=True)
class CachedFeatures:
    """Features of some rows.

    Attributes:
        features: [rows, H] float32.
        computed: Rows that went through the base now; the others were there.
        seconds: What computing took for all of them, whenever that was.
    """

    features: Tensor
    computed: int
    seconds: float


class FeatureCache:
    """The features of one base, pooled in one way.

    Args:
        folder: Of the project's features.
        identity: What the numbers depend on besides rows: digests of base, tokenizer and template, pooling, layer,
            dtype.
        compute: Token ids of prompts -> their features; called for what isn't there.
        say: Called with a line for the person.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        compute: Callable[[Sequence[Sequence[int]]], Tensor],
        say: Callable[[str], None],
    ) -> None:
        self._identity = {**identity, "libraries": _libraries(), "code": _code(), "device": _device()}
        self._folder = folder / digest_of(self._identity)[:24]
        self._compute = compute
        self._say = say

    def features(
        self,
        prompts: Sequence[Sequence[int]],
        progress: Callable[[int, int], None] | None = None,
        stop: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> CachedFeatures:
        """Return the features of prompts, computing what isn't there.

        Args:
            prompts: Token ids of each, at least one prompt.
            progress: Called with (finished, all) after each file.
            stop: Called with the same where a pass may end; raises to end it.

        Raises:
            TunewrightError: The base gave a feature that isn't finite.
        """
        import torch

        parts: list[Tensor] = []
        computed, seconds = 0, 0.0
        for start in range(0, len(prompts), SHARD_ROWS):
            shard = [list(ids) for ids in prompts[start : start + SHARD_ROWS]]
            path = self._folder / f"{digest_of({**self._identity, 'rows': shard})}.safetensors"
            found = self._read(path, len(shard))
            if found is None:
                started = time.perf_counter()
                values = self._compute(shard)
                if not bool(values.isfinite().all()):
                    raise TunewrightError(
                        "the base gave features that are not finite (NaN or infinite)",
                        next_step="set memory.dtype float32, or choose another base",
                    )
                found = values, time.perf_counter() - started
                _write(path, *found)
                computed += len(shard)
                stop(start + len(shard), len(prompts))
            parts.append(found[0])
            seconds += found[1]
            if progress:
                progress(start + len(shard), len(prompts))
        return CachedFeatures(torch.cat(parts), computed, seconds)

    def _read(self, path: Path, rows: int) -> tuple[Tensor, float] | None:
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                values = file.get_tensor("features")
                recorded = file.metadata() or {}
            if values.shape[0] != rows or recorded.get("sha256") != _digest(values):
                raise ValueError("its numbers are not those that were written")
            return values, float(recorded["seconds"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            self._say(f"  the features in {path} are damaged ({error}) and are computed anew")
            return None


def _write(path: Path, values: Tensor, seconds: float) -> None:
    from safetensors.torch import save

    metadata = {"sha256": _digest(values), "seconds": repr(seconds)}
    write_atomic(path, save({"features": values.contiguous()}, metadata=metadata))


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def _code() -> list[str]:
    """Return the digests of what computes features."""
    from components.models import batches, features, forward

    return [sha256_file(Path(str(module.__file__))) for module in (batches, features, forward)]


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _libraries() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers")}
