"""How well people agree with each other on data with several annotators for each group.

Run ``python -m stablepref.benchmarks.human_agreement PATH``, where PATH is anything that
`stablepref.data.read.read_groups` reads with single annotators' ranks, such as HPD v2's
``test.json`` or the groups of its gallery. Prints each measure with its bootstrap interval over
prompts; the measures are defined in `stablepref.evaluation.annotators`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from stablepref.data.groups import Ranks
from stablepref.data.read import format_names, read_groups
from stablepref.evaluation.annotators import majority_shares, single_vs_rest, single_vs_single
from stablepref.evaluation.means import GroupMean
from stablepref.output.tables import Table, print_table

PUBLISHED = {"single against single": "78.1", "single against the average of the others": "85.0"}
"""Per cent on all 400 groups of HPD v2's test split (Stable Preference, Table 5). Their exact
definitions are not published."""


def measure(annotations: Sequence[Sequence[Ranks]]) -> dict[str, GroupMean]:
    """Every measure by its name.

    Args:
        annotations: For each group its annotators' ranks.

    Returns:
        The means over comparisons, with their parts by group.
    """
    return {
        "single against single": single_vs_single(annotations),
        "single against the average of the others": single_vs_rest(annotations),
        "the same, tied averages not counted": single_vs_rest(annotations, "skip"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON if a file is named."""
    parser = argparse.ArgumentParser(description="Agreement between human annotators")
    parser.add_argument("path", help="ranked groups with single annotators' ranks")
    parser.add_argument("--format", default="auto", choices=format_names())
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    options = parser.parse_args(arguments)

    try:
        groups = list(read_groups(options.path, options.format))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    annotated = [group for group in groups if group.annotations]
    annotations = [group.annotations for group in annotated]
    if not annotations:
        parser.error(f"{options.path}: no group has the ranks of single annotators")
    measures = measure(annotations)
    prompts = [group.prompt for group in annotated]
    intervals = {
        name: mean.by_prompt(prompts).interval(resamples=options.resamples, seed=options.seed)
        for name, mean in measures.items()
    }
    shares = majority_shares(annotations)

    print_table(
        Table(
            title=f"{len(annotations)} of {len(groups)} groups have single annotators' ranks",
            columns=(
                "agreement, per cent",
                "value",
                "95 % interval",
                "comparisons",
                "HPD v2 published",
            ),
            rows=[
                (
                    name,
                    f"{100 * value:.2f}",
                    f"{100 * low:.2f} to {100 * high:.2f}",
                    f"{measures[name].count:,}",
                    PUBLISHED.get(name, ""),
                )
                for name, (value, low, high) in intervals.items()
            ],
        )
    )
    print_table(
        Table(
            columns=("majority", "share of image pairs, per cent"),
            rows=[(f"{size:g}", f"{100 * share:.1f}") for size, share in shares.items()],
        )
    )
    if options.json is not None:
        found = {name: interval._asdict() for name, interval in intervals.items()}
        result = {"groups": len(annotations), "agreement": found, "majority": shares}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
