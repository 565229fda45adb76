"""What a training wrote while it ran."""

import json
from pathlib import Path


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
