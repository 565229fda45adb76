"""Batches of pictures: halved for memory, taken apart after an error, and drawn side by side."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, final

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn

from ..diffusion.pipelines import modules_of
from .grouping import shares_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from PIL import Image

    from ..diffusion.pipelines import Pipeline
    from .grouping import Wanted

STREAMS: Final = 2
"""Batches of small pipelines side by side on a CPU, at most: more were not measured."""
_HOOKS: Final = ("_hf_hook", "_diffusers_hook")
"""Where accelerate and diffusers keep what they do around a module, some of it with a state."""


@final
@dataclass(frozen=True)
class Generated:
    """One candidate's picture.

    Attributes:
        index: Position among the candidates.
        image: RGB.
        fault: Why it cannot be chosen, such as a blanked picture; None if it can.
        pruned: Whether it was dropped on the way; its picture is then a prediction.
    """

    index: int
    image: Image.Image
    fault: str | None
    pruned: bool = False


@final
@dataclass(frozen=True)
class Unmade:
    """One picture that could not be made.

    Attributes:
        index: Position among the candidates.
        error: What the pipeline raised.
    """

    index: int
    error: Exception


@final
class Maker:
    """Makes batches; called by one thread or by several at once.

    Args:
        make: The pictures of a batch.
        size: Pictures of a batch; halved when memory runs out.
        keep_going: Return what failed in place of the pictures, once it is known which prompt
            failed.
    """

    def __init__(
        self,
        make: Callable[[Sequence[Wanted]], list[Generated]],
        size: int,
        *,
        keep_going: bool,
    ) -> None:
        self._make = make
        self._size = size
        self._keep_going = keep_going

    def batches(self, groups: Sequence[Sequence[Wanted]]) -> Iterator[list[Wanted]]:
        """Batches of the size that fits by then; none spans two groups."""
        for group in groups:
            start = 0
            while start < len(group):
                batch = list(group[start : start + self._size])
                yield batch
                start += len(batch)

    def __call__(self, batch: Sequence[Wanted]) -> list[Generated | Unmade]:
        """The pictures of a batch in its order.

        Raises:
            Exception: As `pieces` does.
        """
        return [one for piece in self.pieces(batch) for one in piece]

    def pieces(self, batch: Sequence[Wanted]) -> Iterator[list[Generated | Unmade]]:
        """The pictures of a batch in its order, in as many pieces as memory asks for.

        Raises:
            Exception: What `make` raises for pictures of one prompt, unless it is kept going; lack
                of memory for a single picture.
        """
        todo = list(batch)
        while todo:
            part = todo[: self._size]
            try:
                made: list[Generated | Unmade] = [*self._make(part)]
            except Exception as error:  # whatever a pipeline may raise for a prompt
                lacks_memory = should_reduce_batch_size(error)
                if lacks_memory and len(part) == 1:
                    raise
                if lacks_memory:
                    self._size = len(part) // 2
                    made, part = [], []
                else:
                    made = self._apart(part, error)
            if not part:
                clear_device_cache(garbage_collection=True)
                continue
            yield made
            todo = todo[len(part) :]

    def _apart(self, part: Sequence[Wanted], error: Exception) -> list[Generated | Unmade]:
        """What is left of a batch that failed: its prompts one by one, or the error."""
        prompts = dict.fromkeys(one.prompt for one in part)
        if len(prompts) > 1:
            made = {
                found.index: found
                for prompt in prompts
                for found in self([one for one in part if one.prompt == prompt])
            }
            return [made[one.index] for one in part]
        if not self._keep_going:
            raise error
        return [Unmade(one.index, error) for one in part]


def may_run_twice(pipe: Pipeline, arguments: Mapping[str, object]) -> bool:
    """Whether two calls of a pipeline may run at the same time.

    They may where prompts share batches and nothing is kept in the modules during a call: no hooks,
    and no arguments that scale layers for a while. Autocast holds in the thread that entered it.
    """
    hooked = any(
        hasattr(module, name)
        for part in modules_of(pipe)
        for module in part.modules()
        for name in _HOOKS
    )
    scaled = any(isinstance(value, dict) for value in arguments.values())
    cast = torch.is_autocast_enabled("cpu")
    return shares_prompts(pipe, arguments) and not (hooked or scaled or cast)


@contextmanager
def copies_of(
    pipe: Pipeline, count: int
) -> Iterator[Callable[[], AbstractContextManager[Pipeline]]]:
    """Copies of a pipeline that share its weights and nothing else, to be lent.

    Schedulers remember their steps, and tokenizers how they pad.
    """
    free: SimpleQueue[Pipeline] = SimpleQueue()
    for _ in range(count):
        one: Any = copy.copy(pipe)
        for name, part in pipe.components.items():
            if part is not None and not isinstance(part, nn.Module):
                setattr(one, name, copy.deepcopy(part))
        free.put(one)

    @contextmanager
    def lent() -> Iterator[Pipeline]:
        one = free.get()
        try:
            yield one
        finally:
            free.put(one)

    yield lent
