"""The paper's rows as printed, and its tables as the command line writes them."""

import json

from helpers.commandline import Done, run

# As printed, cell by cell.
TABLE_1_LINES = """\
HPS v2|HPD v2|83.3|82.2 (-1.1)|82.2 (-1.1)|81.8 (-1.5)|81.7 (-1.6)
ImageReward|HPD v2|74.2|73.7 (-0.5)|73.6 (-0.6)|73.6 (-0.6)|74.0 (-0.2)
SP (CLIP-L)|HPD v2|77.2|77.3 (+0.1)|77.0 (-0.2)|76.9 (-0.3)|77.0 (-0.2)
SP (CLIP-H)|HPD v2|80.7|81.4 (+0.7)|80.3 (+0.4)|80.4 (+0.3)|80.7 (+0.0)
HPS v2|ImageReward|65.7|64.8 (-0.9)|63.8 (-1.9)|64.2 (-1.5)|63.9 (-1.8)
ImageReward|ImageReward|65.2|64.5 (-0.7)|64.8 (-0.4)|64.8 (-0.4)|65.3 (+0.1)
SP (CLIP-L)|ImageReward|66.3|65.7 (-0.6)|65.6 (-0.7)|65.9 (-0.4)|66.0 (-0.3)
SP (CLIP-H)|ImageReward|66.8|67.4 (+0.6)|66.4 (-0.4)|66.5 (-0.3)|66.7 (-0.1)
""".splitlines()
ROWS = {
    "table2": """\
no|no|CLIP-L|63.1
yes|no|CLIP-L|64.0
no|yes|CLIP-L|65.8
yes|yes|CLIP-L|66.3
no|no|CLIP-H|63.9
yes|no|CLIP-H|64.5
no|yes|CLIP-H|66.2
yes|yes|CLIP-H|66.8""",
    "table3": """\
exp(-ΔS_j) / Σ exp(-ΔS_i)|79.5|66.2
1 / N|80.1|65.8
exp(ΔS_j) / Σ exp(ΔS_i)|80.7|66.8""",
    "table4": """\
CLIP-L|54.8
CLIP-H|57.1
Aesthetic Score Predictor|57.4
HPS v1|61.2
PickScore|62.9
ImageReward|65.1
HPS v2|65.7
Single Human vs. Single Human|65.3
Single Human vs. Averaged Human|53.9
Stable Preference (CLIP-L)|66.3
Stable Preference (CLIP-H)|66.8
Stable Preference (CLIP-H†)|68.0""",
    "table5": """\
CLIP-L|72.8
CLIP-H|74.8
BLIP|74.2
Single Human vs. Single Human|78.1
Single Human vs. Averaged Human|85.0
Stable Preference (CLIP-L)|77.2
Stable Preference (CLIP-H)|80.7
Stable Preference (CLIP-H†)|82.5""",
}
MODELS = (
    "GLIDE", "VQ-Diffusion", "LAFITE", "FuseDream", "CogView2", "Latent Diffusion",
    "VQGAN + CLIP", "DALL-E mini", "Versatile Diffusion", "Stable Diffusion v1.4", "DALL-E 2",
    "Epic Diffusion", "Stable Diffusion v2.0", "Openjourney", "ChilloutMix",
    "MajicMix Realistic", "Dreamlike Photoreal 2.0", "DeepFloyd-XL", "Realistic Vision",
    "Deliberate",
)  # fmt: skip


def paper(*arguments: object, **settings: str) -> Done:
    return run("bench", "paper", *arguments, **settings)


def cells(text: str) -> dict[str, list[dict[str, object]]]:
    """Cells of a JSON table by what stands before them."""
    found = json.loads(text)
    return {
        "|".join(str(value) for name, value in row.items() if name != "cells"): row["cells"]
        for row in found["rows"]
    }
