"""Rows of the table for models since 2024, in a file of their own for its length."""

from __future__ import annotations

from typing import Final

from stablepref.models.entry import HPDV2_TEST, IMAGEREWARD_TEST, LOGIT, Entry
from stablepref.models.sizes import (
    BERT_VOCABULARY,
    BLIP_LARGE,
    QWEN2_VL_7B,
    SIGLIP_SO400M,
    VIT_H_14,
)
from stablepref.weights.remote import RemoteFile

HPS_V3_INSTRUCTION: Final = "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c"
"""SHA-256 of the instruction and its end in hpsv3 1.0.0, dataset/data_collator_qwen.py."""
CYCLEREWARD: Final = "stablepref.models.cyclereward:build_cyclereward"
CYCLEREWARD_FILES: Final = "https://github.com/hjbahng/cyclereward/releases/download/v1.0.0/"
MPS: Final = "stablepref.models.mps:build_mps"
MPS_SCRIPT: Final = RemoteFile(
    "eval_overall_mps_on_hpdv2.py",
    url="https://github.com/Kwai-Kolors/MPS/raw/main/eval_overall_mps_on_hpdv2.py",
)
MPS_CONDITION: Final = "b9d60155529e0ad36251c9401ad1f1c313d621b7eceebdff3888d964eb26d1cf"
"""SHA-256 of the condition for overall preference, which the script holds."""


def _cyclereward(name: str, trained_on: str) -> Entry:
    filename = f"CycleReward-{name}.pth"
    return Entry(
        name=f"cyclereward-{name.lower()}",
        builder=CYCLEREWARD,
        kind="cyclereward",
        backbone="BLIP ViT-L/16 + BERT",
        sizes=BLIP_LARGE,
        protocol="imagereward",
        unit="reward",
        preference_scale=1.0,
        licence="MIT",
        files=(RemoteFile(filename, url=f"{CYCLEREWARD_FILES}{filename}"), BERT_VOCABULARY),
        relation=f"the number of its package's model.score; trained on {trained_on} pairs",
        size_mb=1790,
        page="https://github.com/hjbahng/cyclereward",
        aliases=("CycleReward",) if name == "Combo" else (),
    )


def _mps(name: str, *, threshold: float, scope: str, relation: str) -> Entry:
    return Entry(
        name=name,
        builder=MPS,
        kind="mps",
        backbone="CLIP ViT-H/14 + cross-attention",
        sizes={
            **VIT_H_14,
            "threshold": threshold,
            "scope": scope,
            "condition_sha256": MPS_CONDITION,
        },
        protocol="pickscore",
        unit=LOGIT,
        preference_scale=1.0,
        licence="MIT",
        files=(
            RemoteFile(
                "model.safetensors", repo="RE-N-Y/mpsv1", also=("MPS_overall_checkpoint.pth",)
            ),
            MPS_SCRIPT,
        ),
        relation=relation,
        size_mb=4417,
        page="https://github.com/Kwai-Kolors/MPS",
        published={IMAGEREWARD_TEST: 67.5, HPDV2_TEST: 83.5},
        aliases=("MPS", "RE-N-Y/mpsv1") if scope == "prompt" else (),
    )


RECENT: Final = (
    Entry(
        name="hps-v3",
        builder="stablepref.models.hps_v3:build_hps_v3",
        kind="hps-v3",
        backbone="Qwen2-VL-7B + MLP",
        sizes=QWEN2_VL_7B | {"instruction_sha256": HPS_V3_INSTRUCTION},
        protocol="hps-v3",
        unit="mean of a normal",
        preference_scale=1.0,
        licence="Apache-2.0",
        files=(
            RemoteFile("HPSv3.safetensors", repo="MizzenAI/HPSv3"),
            RemoteFile(
                "data_collator_qwen.py",
                url="https://raw.githubusercontent.com/MizzenAI/HPSv3/main/hpsv3/dataset/data_collator_qwen.py",
            ),
            RemoteFile("tokenizer.json", repo="Qwen/Qwen2-VL-7B-Instruct"),
            RemoteFile("chat_template.json", repo="Qwen/Qwen2-VL-7B-Instruct"),
        ),
        relation="the first number (mu) of HPSv3RewardInferencer.reward, about 5 to 11",
        size_mb=16_500,
        page="https://huggingface.co/MizzenAI/HPSv3",
        published={IMAGEREWARD_TEST: 66.8, HPDV2_TEST: 85.4},
    ),
    _mps(
        "mps-v1",
        threshold=0.3,
        scope="prompt",
        relation="the number of its evaluation scripts, which score one image at a time",
    ),
    _mps(
        "mps-v1-batch",
        threshold=0.01,
        scope="batch",
        relation="the number of its forward, README and imscore: a score depends on the prompts "
        "that are scored in the same batch",
    ),
    _cyclereward("Combo", "text-to-image and image-to-text"),
    _cyclereward("T2I", "text-to-image"),
    _cyclereward("I2T", "image-to-text"),
    Entry(
        name="aesthetic-v2.5",
        builder="stablepref.models.aesthetic_siglip:build_siglip_aesthetic",
        kind="aesthetic-siglip",
        needs_prompt=False,
        backbone="SigLIP SO400M/14 + MLP",
        sizes=SIGLIP_SO400M,
        protocol="squash",
        unit="aesthetic rating (about 1 to 10)",
        loss_form=(10.0, 1.0),
        licence="AGPL-3.0",
        files=(
            RemoteFile(
                "aesthetic_predictor_v2_5.pth",
                url="https://github.com/discus0434/aesthetic-predictor-v2-5/raw/main/models/aesthetic_predictor_v2_5.pth",
                accept="AGPL-3.0",
            ),
            RemoteFile("model.safetensors", repo="google/siglip-so400m-patch14-384"),
        ),
        relation="the number of its package; 5.5 and more counts as good; the prompt is not used",
        size_mb=3515,
        page="https://github.com/discus0434/aesthetic-predictor-v2-5",
        aliases=("aesthetic-predictor-v2-5", "aesthetic-predictor-v2.5"),
    ),
)
