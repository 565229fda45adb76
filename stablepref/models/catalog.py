"""The table of reward models that come with `stablepref.load`: facts and names only.

What builds a model lies in the model's own file, and is imported when the model is loaded. Those
from outside are added in `stablepref.models.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, final

from stablepref.weights.remote import RemoteFile

if TYPE_CHECKING:
    from pathlib import Path

MAX_LOGIT_SCALE: Final = 100
"""The largest factor between cosine and score that a CLIP model may train to, as in CLIP itself."""

IMAGEREWARD_TEST: Final = "ImageReward test"
HPDV2_TEST: Final = "HPD v2 test"
LOGIT: Final = "logit_scale x cosine"

# The architectures in numbers, in open_clip's words for CLIP.
VIT_L_14: Final[dict[str, Any]] = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 768,
        "heads": 12,
        "layers": 12,
    },
    "quick_gelu": True,
}
VIT_H_14: Final[dict[str, Any]] = {
    "embed_dim": 1024,
    "vision_cfg": {
        "image_size": 224,
        "layers": 32,
        "width": 1280,
        "head_width": 80,
        "patch_size": 14,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 1024,
        "heads": 16,
        "layers": 24,
    },
    "quick_gelu": False,
}
BLIP_LARGE: Final[dict[str, Any]] = {
    "vision_width": 1024,
    "vision_depth": 24,
    "text_width": 768,
    "text_depth": 12,
}

BERT_VOCABULARY: Final = RemoteFile("vocab.txt", repo="google-bert/bert-base-uncased")
OPENAI_L_14: Final = RemoteFile(
    "open_clip_model.safetensors",
    repo="timm/vit_large_patch14_clip_224.openai",
    also=("ViT-L-14.pt",),  # OpenAI's own, a TorchScript archive
)

CLIP_MODEL: Final = "stablepref.models.clip:build_clip"
TRANSFORMERS_CLIP: Final = "stablepref.models.clip:build_transformers_clip"
BUNDLED: Final = "stablepref.models.clip:build_bundled"
IMAGEREWARD: Final = "stablepref.models.blip:build_imagereward"
BLIP: Final = "stablepref.models.blip:build_blip"
AESTHETIC: Final = "stablepref.models.aesthetic:build_aesthetic"

Builder = Callable[["Entry", "Sequence[Path]"], Any]
"""Makes the scorer of an entry from its files: on the CPU, in their dtype, in evaluation mode."""


@final
@dataclass(frozen=True)
class Entry:
    """One model of the zoo. What has a default need not be known of a model from outside.

    Attributes:
        name: What `stablepref.load` calls it.
        builder: What makes the scorer of this entry and the local paths of `files`, in their
            order: the function itself, or where it is, as "package.module:function", which is
            imported when the model is loaded.
        kind: What saved configurations call the scorer's class: its `Scorer.kind`.
        backbone: Short name of the architecture, as people know it.
        sizes: The architecture in numbers; the files must fit them.
        protocol: Preprocessing protocol.
        unit: Unit of its scores.
        preference_scale: As in `stablepref.Scorer`.
        loss_form: Offset and factor of the loss, offset - factor x score, by which AlignProp and
            ReNO optimise it (AlignProp's main.py, ReNO's rewards/*.py). HPS is a cosine there and
            100 x cosine here.
        licence: Of the weights, as published.
        files: What is loaded, the weights first.
        relation: How the score relates to the number that the model's own package prints.
        published: Pairwise agreement with people in per cent, by test set, as published
            (HPS v2, ImageReward and Stable Preference papers).
        size_mb: Download in megabytes (10^6 bytes), about.
        page: Where the model is described.
        laboratory: Whether it knows only the drawn shapes of the laboratory, and nothing of taste.
    """

    name: str
    builder: str | Builder
    kind: str = ""
    backbone: str = ""
    sizes: dict[str, Any] = field(default_factory=dict)
    protocol: str = ""
    unit: str = ""
    preference_scale: float | None = None
    loss_form: tuple[float, float] = (0.0, 1.0)
    licence: str = ""
    files: tuple[RemoteFile, ...] = ()
    relation: str = ""
    size_mb: int = 0
    page: str = ""
    published: dict[str, float] = field(default_factory=dict)
    laboratory: bool = False

    def build(self, files: Sequence[Path]) -> Any:  # noqa: ANN401 - a `Scorer`, which needs torch
        """The scorer, on the CPU, in the dtype of its files, in evaluation mode.

        Args:
            files: Local paths in the order of `self.files`.

        Raises:
            WeightsError: A file is truncated, of a foreign format, or does not fit the
                architecture; missing and unexpected keys are named.
            ImportError: The builder cannot be imported.
        """
        return self._builder()(self, files)

    def facts(self) -> dict[str, Any]:
        """All fields as plain JSON values; the builder as the place where it is."""
        builder = self.builder
        if not isinstance(builder, str):
            name = getattr(builder, "__qualname__", type(builder).__qualname__)
            builder = f"{builder.__module__}:{name}"
        fields = {f: getattr(self, f) for f in self.__dataclass_fields__ if f != "files"}
        return fields | {"builder": builder, "files": [asdict(file) for file in self.files]}

    def _builder(self) -> Builder:
        if not isinstance(self.builder, str):
            return self.builder
        module, _, name = self.builder.partition(":")
        try:
            builder: Builder = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            msg = (
                f"the scorer {self.name!r} has the builder {self.builder!r}, which cannot be "
                f'imported ({error}); expected "package.module:function"'
            )
            raise ImportError(msg) from error
        return builder


ENTRIES: Final = (
    Entry(
        name="clip-vit-l-14",
        builder=CLIP_MODEL,
        kind="clip",
        backbone="CLIP ViT-L/14",
        sizes=VIT_L_14,
        protocol="clip",
        unit=LOGIT,
        preference_scale=None,
        loss_form=(100.0, 1.0),
        licence="MIT",
        files=(OPENAI_L_14,),
        relation="CLIPScore prints max(100 x cosine, 0); logit_scale is 100 here, so they agree",
        size_mb=1711,
        page="https://github.com/openai/CLIP",
        published={IMAGEREWARD_TEST: 54.8},
    ),
    Entry(
        name="clip-vit-h-14",
        builder=CLIP_MODEL,
        kind="clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="clip",
        unit=LOGIT,
        preference_scale=None,
        loss_form=(100.0, 1.0),
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
        builder=CLIP_MODEL,
        kind="clip",
        backbone="CLIP ViT-L/14",
        sizes=VIT_L_14,
        protocol="clip",
        unit=LOGIT,
        preference_scale=1.0,
        loss_form=(1.0, 0.01),
        licence="Apache-2.0",
        files=(RemoteFile("hpc.pt"),),
        relation="its repository prints the cosine: divide by logit_scale (100)",
        size_mb=1711,
        page="https://github.com/tgxs002/align_sd",
        published={IMAGEREWARD_TEST: 61.2, HPDV2_TEST: 77.6},
    ),
    Entry(
        name="hps-v2",
        builder=CLIP_MODEL,
        kind="clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="hps",
        unit=LOGIT,
        preference_scale=1.0,
        loss_form=(1.0, 0.01),
        licence="Apache-2.0",
        files=(RemoteFile("HPS_v2_compressed.pt", repo="xswu/HPSv2"),),
        relation='hpsv2.score(..., hps_version="v2.0"), its default, prints the cosine: 0.27 is 27',
        size_mb=1972,
        page="https://github.com/tgxs002/HPSv2",
        published={IMAGEREWARD_TEST: 65.7, HPDV2_TEST: 83.3},
    ),
    Entry(
        name="hps-v2.1",
        builder=CLIP_MODEL,
        kind="clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="hps",
        unit=LOGIT,
        preference_scale=1.0,
        loss_form=(1.0, 0.01),
        licence="Apache-2.0",
        files=(RemoteFile("HPS_v2.1_compressed.pt", repo="xswu/HPSv2", size=1_972_490_005),),
        relation='hpsv2.score(..., hps_version="v2.1") prints the cosine, its benchmark 100 x it',
        size_mb=1972,
        page="https://github.com/tgxs002/HPSv2",
        published={IMAGEREWARD_TEST: 66.8, HPDV2_TEST: 84.1},
    ),
    Entry(
        name="pickscore-v1",
        builder=TRANSFORMERS_CLIP,
        kind="clip",
        backbone="CLIP ViT-H/14",
        sizes=VIT_H_14,
        protocol="pickscore",
        unit=LOGIT,
        preference_scale=1.0,
        loss_form=(30.0, 1.0),
        licence="MIT",
        files=(RemoteFile("model.safetensors", repo="yuvalkirstain/PickScore_v1"),),
        relation="the number of its model card's code before the softmax, about 20 to 22",
        size_mb=3945,
        page="https://huggingface.co/yuvalkirstain/PickScore_v1",
        published={IMAGEREWARD_TEST: 62.9, HPDV2_TEST: 79.8},
    ),
    Entry(
        name="imagereward-v1",
        builder=IMAGEREWARD,
        kind="imagereward",
        backbone="BLIP ViT-L/16 + BERT",
        sizes=BLIP_LARGE,
        protocol="imagereward",
        unit="normalised reward",
        preference_scale=1.0333394966054072,
        loss_form=(2.0, 1.0),
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
        builder=BLIP,
        kind="blip",
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
        builder=AESTHETIC,
        kind="aesthetic",
        backbone="CLIP ViT-L/14 + linear",
        sizes=VIT_L_14,
        protocol="clip",
        unit="aesthetic rating (about 1 to 10)",
        preference_scale=None,
        loss_form=(10.0, 1.0),
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
        builder=AESTHETIC,
        kind="aesthetic",
        backbone="CLIP ViT-L/14 + MLP",
        sizes=VIT_L_14,
        protocol="clip",
        unit="aesthetic rating (about 1 to 10)",
        preference_scale=None,
        loss_form=(10.0, 1.0),
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
        builder=BUNDLED,
        kind="clip",
        backbone="CLIP ViT, 3.7 M parameters",
        protocol="clip",
        unit=LOGIT,
        preference_scale=None,
        licence="Apache-2.0",
        relation="a laboratory CLIP that knows coloured shapes, before it saw any preferences",
        size_mb=8,
        laboratory=True,
    ),
    Entry(
        name="shapes",
        builder=BUNDLED,
        kind="clip",
        backbone="CLIP ViT, 3.7 M parameters",
        protocol="clip",
        unit=LOGIT,
        preference_scale=1.0,
        licence="Apache-2.0",
        relation="shapes-clip after simulated people ranked its shapes; nothing of human taste",
        size_mb=8,
        laboratory=True,
    ),
)
BY_NAME: Final = {entry.name: entry for entry in ENTRIES}
