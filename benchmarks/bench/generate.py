"""Images of a pipeline on disk: each is saved as soon as it exists, and a killed run is resumed."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING, Final, final

from accelerate.utils.memory import clear_device_cache

from stablepref.data.layouts import picture_name
from stablepref.images.sources import UnusableImageError
from stablepref.integrations.best_of_n.candidates import generate_all
from stablepref.integrations.best_of_n.grouping import Wanted, overlaps
from stablepref.integrations.best_of_n.making import Unmade
from stablepref.output.durable import remove_leftovers, replacing
from stablepref.output.progress import progress_bar
from stablepref.runtime.ahead import ahead
from stablepref.weights.network import first_line

from .image_folders import IMAGES_FOLDER, Picture
from .pipelines import load_contestant, pipeline_digest
from .processes import own_part
from .row_files import RowFiles
from .run_files import check_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import torch
    from accelerate import PartialState
    from PIL import Image

    from stablepref.data.prompts import ListedPrompt
    from stablepref.integrations.best_of_n.making import Generated
    from stablepref.integrations.diffusion.pipelines import Pipeline

    from .contestants import Contestant

IN_A_ROW: Final = 3
"""If more prompts than this fail one after another, the pipeline is at fault."""


@final
class Studio:
    """The images of one pipeline for a set of prompts, in a run's folder.

    Image k of prompt p has its own noise, from the seed `seed + k * prompts + p`, whatever the
    batch and the process: all models get the same seeds, and asking for more images of each prompt
    keeps those that exist.

    Args:
        contestant: The pipeline.
        prompts: The set.
        folder: The run's folder; images are written to `images/NAME/`, reasons for missing ones to
            `faults/NAME/`.
        images: Images of each prompt.
        seed: Seed of the first image.
        arguments: For the pipeline's call; the contestant's own arguments override them.
        dtype: Number type of the pipeline; None for float32.
    """

    def __init__(
        self,
        contestant: Contestant,
        prompts: Sequence[ListedPrompt],
        *,
        folder: Path,
        images: int,
        seed: int,
        arguments: Mapping[str, object],
        dtype: str | None,
    ) -> None:
        self.contestant = contestant
        self.prompts = prompts
        self.images = images
        self.seed = seed
        self.arguments = {**arguments, **contestant.arguments}
        self.dtype = dtype
        self.place = folder / IMAGES_FOLDER / contestant.name
        self._faults = RowFiles(folder / "faults" / contestant.name)

    def make(
        self,
        state: PartialState,
        *,
        device: torch.device,
        batch_size: int | None,
        retry: bool,
        progress: bool | None,
        finished: Callable[[Sequence[Picture]], None],
    ) -> None:
        """Make the images that do not exist yet; all processes call this together.

        An image that fails becomes a row with its reason. If too many prompts fail in a row, or all
        of them, the error is raised: the pipeline is wrong, not its prompts, which are tried again
        the next time.

        Args:
            state: The processes.
            device: Where the pipeline runs.
            batch_size: Images made at once, of several prompts where they can share a batch
                (`stablepref.integrations.best_of_n.grouping`); None chooses, and it shrinks where
                memory runs out.
            retry: Try those again that failed before.
            progress: Show a progress bar; None shows it in a terminal once work takes seconds.
            finished: Gets the images that exist, batch by batch, where work on them meanwhile does
                not slow the pipeline down.

        Raises:
            ResumeError: There are images that were made with other weights.
            RuntimeError: Memory runs out.
            Exception: The pipeline fails for prompt after prompt: what it raised last; or it cannot
                be loaded, see `load_contestant`.
        """
        todo = self._missing(retry=retry)
        state.wait_for_everyone()
        if todo:
            pipe = load_contestant(self.contestant, self.arguments, dtype=self.dtype, device=device)
            settings: Mapping[str, object] = pipeline_digest(pipe)
            if state.is_main_process:
                self._prepare(settings, retry=retry)
            state.wait_for_everyone()
            mine = own_part(list(todo.items()), state)
            total = sum(len(numbers) for _, numbers in mine)
            show = progress if state.is_main_process else False
            with progress_bar(self.contestant.name, total=total, show=show) as advance:
                for count in self._made(pipe, mine, state, settings, batch_size, finished):
                    advance(count)
            del pipe  # frees memory for the next one
            clear_device_cache(garbage_collection=True)
        state.wait_for_everyone()

    def pictures(self) -> list[Picture]:
        """All images in the order of the prompts, an error in place of those that failed.

        Raises:
            FileNotFoundError: An image does not exist and did not fail: the run is not complete.
        """
        reasons = self._reasons()
        pictures = []
        for place in range(len(self.prompts)):
            for number in range(self.images):
                path: object = self._file(place, number)
                if (place, number) in reasons:
                    path = UnusableImageError(reasons[place, number])
                elif not self._file(place, number).is_file():
                    msg = f"{path} has not been made yet: run the benchmark to its end"
                    raise FileNotFoundError(msg)
                pictures.append(Picture(self.contestant.name, place, number, path))
        return pictures

    def _missing(self, *, retry: bool) -> dict[int, list[int]]:
        """Numbers of the images to be made, by the index of their prompt."""
        reasons = {} if retry else self._reasons()
        missing: dict[int, list[int]] = defaultdict(list)
        for number in range(self.images):
            for place in range(len(self.prompts)):
                if (place, number) not in reasons and not self._file(place, number).is_file():
                    missing[place].append(number)
        return missing

    def _prepare(self, settings: Mapping[str, object], *, retry: bool) -> None:
        """Make folders, and remove unfinished files of killed runs."""
        self._faults.begin(settings, retry=lambda _: retry)
        for folder in {self._file(place, 0).parent for place in range(len(self.prompts))}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)

    def _made(
        self,
        pipe: Pipeline,
        todo: Sequence[tuple[int, list[int]]],
        state: PartialState,
        settings: Mapping[str, object],
        batch_size: int | None,
        finished: Callable[[Sequence[Picture]], None],
    ) -> Iterator[int]:
        """Make images, and yield after each batch how many were made or failed."""
        # By prompt, since the last image was made; so are the rows held back.
        failures: dict[int, Exception] = {}
        held: list[dict[str, object]] = []
        count = len(self.prompts)
        wanted = [
            Wanted(key, self.prompts[place].prompt, self.seed + key)
            for place, numbers in todo
            for key in (number * count + place for number in numbers)
        ]
        batches = generate_all(
            pipe, wanted, batch_size=batch_size, arguments=self.arguments, keep_going=True
        )
        beside = overlaps(pipe, self.arguments)
        with closing(ahead(self._saved, batches, workers=1 if beside else 0, most=2)) as saved:
            for faults, pictures, outcomes in saved:
                for place, error in outcomes.items():
                    failures = {} if error is None else {**failures, place: error}
                    if error is not None and len(failures) > IN_A_ROW:
                        raise error
                held += faults
                if held and not failures:
                    self._faults.write(state.process_index, settings, held)
                    held = []
                if beside:
                    finished(pictures)
                yield len(faults) + len(pictures)
        if held:
            if not any(self.place.rglob("*.png")):
                raise next(reversed(failures.values()))
            self._faults.write(state.process_index, settings, held)

    def _saved(
        self, batch: Sequence[Generated | Unmade]
    ) -> tuple[list[dict[str, object]], list[Picture], dict[int, Exception | None]]:
        """Write the good images of a batch.

        Returns:
            What is wrong with the others, as rows; the good ones; and for the place of each prompt
            what the pipeline raised, or None.
        """
        faults: list[dict[str, object]] = []
        pictures: list[Picture] = []
        outcomes: dict[int, Exception | None] = {}
        for one in batch:
            number, place = divmod(one.index, len(self.prompts))
            if isinstance(one, Unmade):
                outcomes[place] = one.error
                fault: str | None = f"{type(one.error).__name__}: {first_line(one.error)}"
            else:
                outcomes[place] = None
                fault = one.fault
                if fault is None:
                    path = self._file(place, number)
                    _write(one.image, path)
                    pictures.append(Picture(self.contestant.name, place, number, path))
            if fault is not None:
                faults.append({"prompt": place, "image": number, "fault": fault})
        return faults, pictures, outcomes

    def _reasons(self) -> dict[tuple[int, int], str]:
        """Why images are missing, by index of the prompt and number."""
        rows = self._faults.rows(lambda row: check_fault(row, len(self.prompts)))
        return {(row["prompt"], row["image"]): row["fault"] for row in rows}

    def _file(self, place: int, number: int) -> Path:
        return self.place / f"{picture_name(self.prompts[place], number)}.png"


def _write(image: Image.Image, path: Path) -> None:
    """Write a picture, whole under its own name or not at all."""
    with replacing(path) as staging:
        image.save(staging, "PNG")
