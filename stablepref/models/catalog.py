"""The table of reward models that `stablepref.load` knows by name: facts only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, final

from stablepref.models.architectures import BLIP_LARGE, VIT_H_14, VIT_L_14

IMAGEREWARD_TEST: Final = "ImageReward test"
HPDV2_TEST: Final = "HPD v2 test"
LOGIT: Final = "logit_scale x cosine"


@final
@dataclass(frozen=True)
class RemoteFile:
    """One official file.

    Attributes:
        filename: Its name, by which a local copy is recognised.
        also: Names of official files with the same weights in another format, which are read when
            they are there but never downloaded.
        repo: Hub repository that holds it, if it is on the hub.
        url: Its address, if it is not.
        size: Bytes, where known.
        sha256: Checksum, where known beforehand; for hub files the hub's own is used.
    """

    filename: str
    repo: str | None = None
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the file."""
        return (self.filename, *self.also)


BERT_VOCABULARY: Final = RemoteFile("vocab.txt", repo="google-bert/bert-base-uncased")
OPENAI_L_14: Final = RemoteFile(
    "open_clip_model.safetensors",
    repo="timm/vit_large_patch14_clip_224.openai",
    also=("ViT-L-14.pt",),  # OpenAI's own, a TorchScript archive
)


@final
@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Attributes:
        name: What `stablepref.load` calls it.
        family: Which reader takes its files, see `stablepref.weights.files`.
        backbone: Short name of the architecture, as people know it.
        sizes: The architecture in numbers; the files must fit them.
        protocol: Preprocessing protocol.
        unit: Unit of its scores.
        preference_scale: As in `stablepref.Scorer`.
        licence: Of the weights, as published.
        files: What is loaded, the weights first.
        relation: How the score relates to the number that the model's own package prints.
        published: Pairwise agreement with people in per cent, by test set, as published
            (HPS v2, ImageReward and Stable Preference papers).
        size_mb: Download in megabytes (10^6 bytes), about.
        page: Where the model is described.
    """

    name: str
    family: Literal["open_clip", "transformers_clip", "imagereward", "blip", "aesthetic", "folder"]
    backbone: str
    sizes: dict[str, Any]
    protocol: str
    unit: str
    preference_scale: float | None
    licence: str
    files: tuple[RemoteFile, ...]
    relation: str
    size_mb: int
    page: str
    published: dict[str, float] = field(default_factory=dict)


ENTRIES: Final = (
    Entry(
        name="clip-vit-l-14",
        family="open_clip",
        backbone="CLIP ViT-L/14",
        sizes=VIT_L_14,
        protocol="clip",
        unit=LOGIT,
        preference_scale=None,
        licence="MIT",
        files=(OPENAI_L_14,),
        relation="CLIPScore prints max(100 x cosine, 0); logit_scale is 100 here, so they agree",
        size_mb=1711,
        page="https://github.com/openai/CLIP",
        published={IMAGEREWARD_TEST: 54.8},
    ),
    Entry(
        name="clip-vit-h-14",
        family="open_clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="clip",
        unit=LOGIT,
        preference_scale=None,
        licence="MIT",
        files=(
            RemoteFile("open_clip_model.safetensors", repo="laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        ),
        relation="logit_scale x cosine as in open_clip",
        size_mb=3944,
        page="https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        published={IMAGEREWARD_TEST: 57.1},
    ),
    Entry(
        name="hps-v1",
        family="open_clip",
        backbone="CLIP ViT-L/14",
        sizes=VIT_L_14,
        protocol="clip",
        unit=LOGIT,
        preference_scale=1.0,
        licence="Apache-2.0",
        files=(RemoteFile("hpc.pt"),),
        relation="its repository prints the cosine: divide by logit_scale (100)",
        size_mb=1711,
        page="https://github.com/tgxs002/align_sd",
        published={IMAGEREWARD_TEST: 61.2, HPDV2_TEST: 77.6},
    ),
    Entry(
        name="hps-v2",
        family="open_clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="hps",
        unit=LOGIT,
        preference_scale=1.0,
        licence="Apache-2.0",
        files=(RemoteFile("HPS_v2_compressed.pt", repo="xswu/HPSv2"),),
        relation='hpsv2.score(..., hps_version="v2.0"), its default, prints the cosine: 0.27 is 27',
        size_mb=1972,
        page="https://github.com/tgxs002/HPSv2",
        published={IMAGEREWARD_TEST: 65.7, HPDV2_TEST: 83.3},
    ),
    Entry(
        name="hps-v2.1",
        family="open_clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="hps",
        unit=LOGIT,
        preference_scale=1.0,
        licence="Apache-2.0",
        files=(RemoteFile("HPS_v2.1_compressed.pt", repo="xswu/HPSv2", size=1_972_490_005),),
        relation='hpsv2.score(..., hps_version="v2.1") prints the cosine, its benchmark 100 x it',
        size_mb=1972,
        page="https://github.com/tgxs002/HPSv2",
        published={IMAGEREWARD_TEST: 66.8, HPDV2_TEST: 84.1},
    ),
    Entry(
        name="pickscore-v1",
        family="transformers_clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="pickscore",
        unit=LOGIT,
        preference_scale=1.0,
        licence="MIT",
        files=(RemoteFile("model.safetensors", repo="yuvalkirstain/PickScore_v1"),),
        relation="the number of its model card's code before the softmax, about 20 to 22",
        size_mb=3945,
        page="https://huggingface.co/yuvalkirstain/PickScore_v1",
        published={IMAGEREWARD_TEST: 62.9, HPDV2_TEST: 79.8},
    ),
    Entry(
        name="imagereward-v1",
        family="imagereward",
        backbone="BLIP ViT-L/16 + BERT",
        sizes=BLIP_LARGE,
        protocol="imagereward",
        unit="normalised reward",
        preference_scale=1.0333394966054072,
        licence="Apache-2.0",
        files=(
            RemoteFile("ImageReward.pt", repo="THUDM/ImageReward", size=1_786_880_927),
            BERT_VOCABULARY,
        ),
        relation="the number of ImageReward.load(...).score",
        size_mb=1787,
        page="https://github.com/THUDM/ImageReward",
        published={IMAGEREWARD_TEST: 65.1, HPDV2_TEST: 74.0},
    ),
    Entry(
        name="blip-large",
        family="blip",
        backbone="BLIP ViT-L/16 + BERT",
        sizes=BLIP_LARGE,
        protocol="imagereward",
        unit="cosine",
        preference_scale=None,
        licence="BSD-3-Clause",
        files=(
            RemoteFile(
                "model_large.pth",
                url="https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/model_large.pth",
            ),
            BERT_VOCABULARY,
        ),
        relation="the BLIP score of the ImageReward package",
        size_mb=1900,
        page="https://github.com/salesforce/BLIP",
    ),
    Entry(
        name="laion-aesthetic-v1",
        family="aesthetic",
        backbone="CLIP ViT-L/14 + linear",
        sizes=VIT_L_14,
        protocol="clip",
        unit="aesthetic rating (about 1 to 10)",
        preference_scale=None,
        licence="MIT",
        files=(
            RemoteFile(
                "sa_0_4_vit_l_14_linear.pth",
                url="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
                size=4071,
                sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
            ),
            OPENAI_L_14,
        ),
        relation="the number of its notebook; the prompt is not used",
        size_mb=1711,
        page="https://github.com/LAION-AI/aesthetic-predictor",
    ),
    Entry(
        name="laion-aesthetic-v2",
        family="aesthetic",
        backbone="CLIP ViT-L/14 + MLP",
        sizes=VIT_L_14,
        protocol="clip",
        unit="aesthetic rating (about 1 to 10)",
        preference_scale=None,
        licence="Apache-2.0",
        files=(
            RemoteFile(
                "sac+logos+ava1-l14-linearMSE.pth",
                url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth",
                size=3_714_759,
                sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
            ),
            OPENAI_L_14,
        ),
        relation="the number of its own script; the prompt is not used",
        size_mb=1715,
        page="https://github.com/christophschuhmann/improved-aesthetic-predictor",
        published={IMAGEREWARD_TEST: 57.4, HPDV2_TEST: 76.8},
    ),
    Entry(
        name="shapes-clip",
        family="folder",
        backbone="CLIP ViT, 3.7 M parameters",
        sizes={},
        protocol="clip",
        unit=LOGIT,
        preference_scale=None,
        licence="Apache-2.0",
        files=(),
        relation="a laboratory CLIP that knows coloured shapes, before it saw any preferences",
        size_mb=8,
        page="",
    ),
    Entry(
        name="shapes",
        family="folder",
        backbone="CLIP ViT, 3.7 M parameters",
        sizes={},
        protocol="clip",
        unit=LOGIT,
        preference_scale=1.0,
        licence="Apache-2.0",
        files=(),
        relation="shapes-clip after simulated people ranked its shapes; nothing of human taste",
        size_mb=8,
        page="",
    ),
)
BY_NAME: Final = {entry.name: entry for entry in ENTRIES}
