"""Full-size checkpoints with seeded weights in the official file formats, written once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..parity.cases import CASES, official_state, write_official_files


def seeded_checkpoint(name: str, folder: Path, *, blocks: tuple[int, int] | None = None) -> Path:
    """The official weights file of a zoo model, with seeded weights; written if it is missing.

    The weights are those of the parity tests (`parity.weights`): matrices keep the size of their
    inputs, attention is uneven, so scores differ by points between pictures. Speed does not depend
    on their values.

    Args:
        name: A name of the model zoo.
        folder: Where to keep it, gigabytes large; created if it is missing.
        blocks: Numbers of vision and text blocks; None for those of the published model.
    """
    case = CASES[name]
    blocks = blocks or case.blocks
    home = folder / f"{name}-{blocks[0]}-{blocks[1]}"
    path = home / case.filename
    if not path.is_file():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as staging:
            written = write_official_files(name, blocks, Path(staging))
            for file in reversed(written):  # the weights last: with them the folder is complete
                file.replace(home / file.name)
        official_state.cache_clear()  # it would keep gigabytes
    return path
