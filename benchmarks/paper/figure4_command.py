"""Draw the weight of step 1 over the margin: Figure 4 of the paper, and the defaults.

Run ``python -m stablepref.benchmarks.paper.figure4_command docs/assets/figure4.svg``. Needs the
extra ``bench``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from stablepref.losses import order_weight
from stablepref.output.figures import save_figure

CURVES = ((0.1, 0.05, "Figure 4 of the paper"), (0.3, 0.2, "default, section 4.2"))
"""b, τ and where they come from."""


def draw(path: Path) -> None:
    """Write the figure; equal inputs give equal bytes in SVG."""
    margin = torch.linspace(-1, 2, 601, dtype=torch.float64)
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for b, tau, origin in CURVES:
        label = f"b = {b}, τ = {tau} ({origin})"
        (line,) = axes.plot(margin.numpy(), order_weight(margin, b, tau).numpy(), label=label)
        axes.plot([b], [0.5], "o", color=line.get_color())
    axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xlabel("margin ΔS = S(better) - S(worse), in model units")
    axes.set_ylabel("weight of the pair in step 1")
    axes.annotate("wrong order", (-0.5, 0.06), ha="center", color="0.4")
    axes.annotate("right order", (1.3, 0.06), ha="center", color="0.4")
    axes.legend(loc="upper right")
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw to the file named on the command line."""
    parser = argparse.ArgumentParser(description="The weight of step 1 over the margin")
    parser.add_argument("path", type=Path, help="file to write, .svg or .png")
    draw(parser.parse_args(arguments).path)


if __name__ == "__main__":
    main()
