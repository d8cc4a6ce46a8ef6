"""What a run does when the device has no memory left: smaller micro-batches, then checkpointing, then a clear error.

The effective batch stays as it is. Weights and optimizer states change only when a whole effective batch has been seen,
so its beginning is the last good state: gradients are dropped and the batch is seen again in smaller parts. The loss is
normalised over the effective batch, so that the split doesn't show in it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from components.data.packing import Layout, PackedSequence, collate
from components.errors import VerdictError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "EffectiveBatch",
    "Split",
    "is_out_of_memory",
    "random_states",
    "restore_random",
    "smaller",
    "told_clearly",
]

# what torch's allocators, the C library and drivers say; cuBLAS has a workspace of its own, and where that can't be had
# it says that it isn't initialised
_SIGNS = re.compile(
    r"can't allocate memory|DefaultCPUAllocator|not enough memory|\b(CUDA|HIP|XPU|MPS)\b.*out of memory"
    r"|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)",
    re.IGNORECASE,
)
_LESS = (
    "lower finetune.max_tokens, finetune.rows_per_sequence or finetune.rank, set finetune.method to qlora, choose a "
    "smaller base, or give more memory; with the same settings and more memory the run goes on from its last checkpoint"
)


@dataclass(frozen=True)
class Split:
    """How an effective batch is cut into parts that fit.

    Attributes:
        micro_batch_size: Packed sequences in one forward pass.
        gradient_checkpointing: Whether activations are computed again in the backward pass.
        recomputes: Whether the method bears that at all.
    """

    micro_batch_size: int
    gradient_checkpointing: bool
    recomputes: bool = True


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error says that an allocator had nothing left.

    Args:
        error: What was raised: torch's OutOfMemoryError, MemoryError, a RuntimeError in an allocator's words, or an
            error that one of these caused.

    Returns:
        Whether trying again with less can help.
    """
    import torch

    if error is None:
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError) and _SIGNS.search(str(error)):
        return True
    return is_out_of_memory(error.__cause__)


def smaller(split: Split) -> Split | None:
    """Return the next split to try, None when there is none.

    Args:
        split: The one that didn't fit.

    Returns:
        Half the micro-batch, rounded down; at micro-batch 1 the same with checkpointing, where the method bears it.
    """
    if split.micro_batch_size > 1:
        return replace(split, micro_batch_size=split.micro_batch_size // 2)
    if split.gradient_checkpointing or not split.recomputes:
        return None
    return replace(split, gradient_checkpointing=True)


@contextlib.contextmanager
def told_clearly(what: str) -> Iterator[None]:
    """Turn an allocator's error that nothing can be done about here into a verdict.

    Args:
        what: What was under way, such as "loading the base".

    Raises:
        VerdictError: Memory ran out.
    """
    try:
        yield
    except VerdictError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise VerdictError(f"out of memory {what}", next_step=_LESS) from error


def random_states() -> list[Tensor]:
    """Return the states of the generators that dropout draws from: the CPU's, and that of each GPU."""
    import torch

    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]


def restore_random(states: Sequence[Tensor]) -> None:
    """Put generators back to where they were.

    Args:
        states: As `random_states` gave them.
    """
    import torch

    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


class EffectiveBatch:
    """Run the micro-batches of each optimizer step, in smaller parts from the moment on that memory runs out.

    Args:
        steps: For each optimizer step its micro-batches, as planned.
        split: Micro-batch and checkpointing as planned.
        pad_id: Token id for padding.
        layout: How batches say which token sees which.
        checkpoint_activations: Switches gradient checkpointing on.
        say: Called with a line for the person.

    Attributes:
        split: What is in use.
        splits: For each time that memory ran out the step, and what is in use from there on.
    """

    def __init__(
        self,
        steps: Sequence[Sequence[Sequence[PackedSequence]]],
        split: Split,
        pad_id: int,
        layout: Layout,
        checkpoint_activations: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.split = split
        self.splits: list[dict[str, Any]] = []
        self._steps = steps
        self._pad_id, self._layout = pad_id, layout
        self._checkpoint_activations = checkpoint_activations
        self._say = say
        self._place = 0
        self._random: list[Tensor] = []

    def restore(self, splits: list[dict[str, Any]]) -> None:
        """Go on with what a killed run had come to, so that memory doesn't run out once more."""
        self.splits = splits
        if splits:
            last = splits[-1]
            self._use(
                replace(
                    self.split,
                    micro_batch_size=last["micro_batch_size"],
                    gradient_checkpointing=last["gradient_checkpointing"],
                )
            )

    def begin(self) -> None:
        """Note that the next micro-batch is the first of an optimizer step."""
        self._place = 0

    def run(
        self,
        step: int,
        collated: dict[str, Tensor],
        forward_backward: Callable[[dict[str, Tensor]], Tensor],
        drop_gradients: Callable[[], None],
    ) -> Tensor:
        """Run the next micro-batch of a step; when memory runs out, the step again up to there, in smaller parts.

        Args:
            step: Optimizer steps done.
            collated: The micro-batch as it was planned.
            forward_backward: Adds the gradients of a batch and returns its share of the loss.
            drop_gradients: Sets the gradients to nothing.

        Returns:
            The micro-batch's share of the loss, a scalar.

        Raises:
            VerdictError: Not even a single sequence with checkpointing fits.
        """
        import torch

        if self._place == 0:
            self._random = random_states()
        place, self._place = self._place, self._place + 1
        loss = self._attempt(step, [place], None if self.splits else collated, forward_backward)
        while loss is None:
            self._make_smaller(step)
            drop_gradients()
            restore_random(self._random)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            loss = self._attempt(step, list(range(place + 1)), None, forward_backward)
        return loss

    def _attempt(
        self,
        step: int,
        places: Sequence[int],
        collated: dict[str, Tensor] | None,
        forward_backward: Callable[[dict[str, Tensor]], Tensor],
    ) -> Tensor | None:
        """Return the loss of the last of some micro-batches, or None when memory ran out."""
        loss: Tensor | None = None
        try:
            for place in places:
                loss = None
                for part in self._parts(step, place) if collated is None else [collated]:
                    share = forward_backward(part)
                    loss = share if loss is None else loss + share
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # its traceback holds the tensors of the pass, and is gone once this block is left
            return None
        return loss

    def _parts(self, step: int, place: int) -> Iterator[dict[str, Tensor]]:
        micro_batch, size = self._steps[step][place], self.split.micro_batch_size
        for start in range(0, len(micro_batch), size):
            yield collate(micro_batch[start : start + size], self._pad_id, self._layout)

    def _make_smaller(self, step: int) -> None:
        found = smaller(self.split)
        if found is None:
            raise VerdictError(
                f"out of memory in step {step + 1}, with one sequence at a time"
                + (" and gradient checkpointing" if self.split.gradient_checkpointing else ""),
                next_step=_LESS,
            )
        before = self.split
        self._use(found)
        # each planned micro-batch is cut by itself; the last step of an epoch may have fewer than the others
        accumulation = max(
            sum(-(-len(micro_batch) // found.micro_batch_size) for micro_batch in one) for one in self._steps[step:]
        )
        self.splits.append(
            {
                "step": step + 1,
                "micro_batch_size": found.micro_batch_size,
                "gradient_checkpointing": found.gradient_checkpointing,
                "gradient_accumulation_steps": accumulation,
            }
        )
        if found.micro_batch_size == before.micro_batch_size:
            self._say(f"out of memory in step {step + 1}: begun again with gradient checkpointing, and so from here on")
        else:
            self._say(
                f"out of memory in step {step + 1} with micro-batch {before.micro_batch_size}: begun again with "
                f"micro-batch {found.micro_batch_size} x accumulation {accumulation}, and so from here on; the "
                "effective batch stays as it is"
            )

    def _use(self, split: Split) -> None:
        if split.gradient_checkpointing and not self.split.gradient_checkpointing:
            self._checkpoint_activations()
        self.split = split
