"""ImageReward, and the BLIP image-text similarity it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, final

from accelerate import init_empty_weights
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from stablepref.models.aesthetic import MLPHead
from stablepref.models.bert import (
    HEAD_WIDTH,
    VOCABULARY_FILE,
    BertEncoder,
    WordPieceTokenizer,
    read_vocabulary,
    write_vocabulary,
)
from stablepref.models.convert import blip_to_ours, imagereward_to_ours
from stablepref.preprocess.preprocess import Preprocess
from stablepref.runtime.precision import unit
from stablepref.scorer import Scorer
from stablepref.scoring.towers import Tower, Towers
from stablepref.weights.errors import WeightsError
from stablepref.weights.files import assign_weights, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from stablepref.models.entry import Entry

# Mean and standard deviation of the head's output over ImageReward's data; from image-reward 1.5,
# ImageReward.py.
REWARD_MEAN: Final = 0.16717362830052426
REWARD_STD: Final = 1.0333394966054072
MAX_LENGTH: Final = 35
IMAGE_SIZE: Final = 224
PATCH_SIZE: Final = 16
MOST_LAYERS: Final = 256


class BLIPBase(Scorer):
    """What ImageReward, CycleReward and BLIP share: vocabulary, image tower, how they are saved.

    Attributes:
        architecture: Widths and depths, under the names of the class's arguments.
    """

    preprocess: Preprocess
    text: BertEncoder

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        name: str,
        unit: str,
        preference_scale: float | None,
        max_length: int = MAX_LENGTH,
        **architecture: int,
    ) -> None:
        super().__init__(
            name=name,
            unit=unit,
            preprocess=Preprocess("imagereward", IMAGE_SIZE),
            preference_scale=preference_scale,
        )
        wrong = {k: v for k, v in architecture.items() if type(v) is not int or not 0 < v <= 8192}
        deep = {k: v for k, v in architecture.items() if k.endswith("depth") and v > MOST_LAYERS}
        if wrong or deep:
            msg = f"its sizes are {wrong | deep}; expected whole numbers, as large as BLIP's"
            raise ValueError(msg)
        self.architecture = architecture
        self.tokenizer = WordPieceTokenizer(vocabulary, max_length=max_length)
        self.vision = vision_tower(architecture["vision_width"], architecture["vision_depth"])

    def checkpoint_activations(self) -> None:
        """In the image tower, which does most of the work; by timm's own means."""
        self.vision.set_grad_checkpointing()

    def two_towers(self, image_last: nn.Module | None, text_last: nn.Module) -> Towers:
        """Both towers, with what follows each."""
        vision, text = self.vision, self.text
        first = (vision.patch_embed, vision.cls_token, vision.pos_embed)
        return Towers(
            Tower(first, list(vision.blocks), (vision.norm, image_last)),
            Tower(
                (text.word_embeddings, text.position_embeddings, text.norm),
                list(text.layers),
                (text_last,),
            ),
        )

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        own = {"name": self.name, "preference_scale": self.preference_scale}
        return {"scorer": self.kind, **own, **self.architecture}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """The model that `config` describes, its weights still to be loaded."""
        arguments = {key: value for key, value in config.items() if key != "scorer"}
        return cls(read_vocabulary(folder / VOCABULARY_FILE), **arguments)

    def save_files(self, folder: Path) -> None:
        """Write the vocabulary."""
        write_vocabulary(self.tokenizer.vocabulary, folder / VOCABULARY_FILE)


class BLIPReader(BLIPBase):
    """A model whose BERT reads the prompt and sees the image's tokens, with a head at its end."""

    text: BertEncoder
    head: nn.Module

    def reading_text(self) -> BertEncoder:
        """BERT in this model's sizes, which attends to the image tokens."""
        sizes = self.architecture
        return BertEncoder(
            vocabulary_size=len(self.tokenizer),
            width=sizes["text_width"],
            depth=sizes["text_depth"],
            image_width=sizes["vision_width"],
        )

    def towers(self) -> Towers:
        """The vision transformer, and BERT with the head."""
        return self.two_towers(None, self.head)

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Image tokens `(batch, 197, vision_width)`, the class token first."""
        return self.vision.forward_features(inputs.to(self.dtype))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Token ids and mask, int64 `(batch, 2, length)`; `match` reads them beside the image."""
        return self.tokenizer(prompts).to(self.device)


@final
class ImageRewardScorer(BLIPReader):
    """ImageReward (Xu et al. 2023, arXiv:2304.05977): BERT reads the prompt and sees the image.

    Score = (head(BERT(prompt, image tokens)) - REWARD_MEAN) / REWARD_STD. It was trained by the
    sigmoid of differences before that normalisation, so `preference_scale` is REWARD_STD.
    """

    kind = "imagereward"

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        name: str = "imagereward-v1",
        preference_scale: float | None = REWARD_STD,
        vision_width: int = 1024,
        vision_depth: int = 24,
        text_width: int = 768,
        text_depth: int = 12,
    ) -> None:
        """Build the model with random weights.

        Args:
            vocabulary: Tokens of bert-base-uncased, or others of the same form.
            name: What `stablepref.load` calls the model.
            preference_scale: The factor that turns a difference of scores into log-odds; 1 for a
                model trained here, on its normalised rewards.
            vision_width: Width of the vision transformer, a multiple of 64 as all widths.
            vision_depth: Number of its blocks.
            text_width: Width of BERT.
            text_depth: Number of its layers.

        Raises:
            ValueError: The vocabulary lacks BERT's special tokens, or a width is no multiple of 64.
        """
        super().__init__(
            vocabulary,
            name=name,
            unit="normalised reward",
            preference_scale=preference_scale,
            vision_width=vision_width,
            vision_depth=vision_depth,
            text_width=text_width,
            text_depth=text_depth,
        )
        self.text = self.reading_text()
        self.head = MLPHead(text_width)

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Normalised rewards `(batch,)`; the head and all after it in float32."""
        reward = self.head(self.text(prompt_features, image_features))
        return (reward - REWARD_MEAN) / REWARD_STD


@final
class BLIPScorer(BLIPBase):
    """Cosine of BLIP's image and text projections (Li et al. 2022, arXiv:2201.12086).

    The "BLIP score" of the ImageReward paper. BLIP itself was not trained on preferences.
    """

    kind = "blip"

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        name: str = "blip-large",
        preference_scale: float | None = None,
        vision_width: int = 1024,
        vision_depth: int = 24,
        text_width: int = 768,
        text_depth: int = 12,
        projection_width: int = 256,
    ) -> None:
        """Build the model with random weights.

        Args:
            vocabulary: Tokens of bert-base-uncased, or others of the same form.
            name: What `stablepref.load` calls the model.
            preference_scale: The factor that turns a difference of scores into log-odds; None for
                BLIP itself, which was not trained on preferences.
            vision_width: Width of the vision transformer, a multiple of 64 as all widths.
            vision_depth: Number of its blocks.
            text_width: Width of BERT.
            text_depth: Number of its layers.
            projection_width: Width of the space in which image and text are compared.

        Raises:
            ValueError: The vocabulary lacks BERT's special tokens, or a width is no multiple of 64.
        """
        super().__init__(
            vocabulary,
            name=name,
            unit="cosine",
            preference_scale=preference_scale,
            vision_width=vision_width,
            vision_depth=vision_depth,
            text_width=text_width,
            text_depth=text_depth,
            projection_width=projection_width,
        )
        self.text = BertEncoder(
            vocabulary_size=len(self.tokenizer), width=text_width, depth=text_depth
        )
        self.vision_projection = nn.Linear(vision_width, projection_width)
        self.text_projection = nn.Linear(text_width, projection_width)

    def towers(self) -> Towers:
        """The vision transformer and BERT, each with its projection."""
        return self.two_towers(self.vision_projection, self.text_projection)

    def encode_inputs(self, inputs: Tensor) -> Tensor:
        """Unit vectors `(batch, projection_width)` of normalised inputs `(batch, 3, 224, 224)`."""
        tokens = self.vision.forward_features(inputs.to(self.dtype))
        return unit(self.vision_projection(tokens[:, 0]))

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors `(batch, projection_width)` of prompts."""
        return unit(self.text_projection(self.text(self.tokenizer(prompts).to(self.device))))

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Cosines `(batch,)`, computed in float32."""
        return (image_features * prompt_features).sum(-1)


def vision_tower(width: int, depth: int) -> VisionTransformer:
    """BLIP's ViT: 16-pixel patches at 224, heads 64 wide; `forward_features` gives all tokens.

    Raises:
        ValueError: `width` is not a multiple of 64.
    """
    if width % HEAD_WIDTH:
        msg = f"the vision width must be a multiple of {HEAD_WIDTH}, got {width}"
        raise ValueError(msg)
    return VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=width,
        depth=depth,
        num_heads=width // HEAD_WIDTH,
        num_classes=0,
        global_pool="",
    )


def build_imagereward(entry: Entry, files: Sequence[Path]) -> ImageRewardScorer:
    """The scorer of ImageReward's official file and BERT's vocabulary."""
    scorer = imagereward_from(read_weights(files[0]), files[1], name=entry.name, source=files[0])
    check_sizes(entry, scorer.config(), source=files[0])
    return scorer


def build_blip(entry: Entry, files: Sequence[Path]) -> BLIPScorer:
    """The scorer of BLIP's official file and BERT's vocabulary."""
    scorer = blip_from(read_weights(files[0]), files[1], name=entry.name, source=files[0])
    check_sizes(entry, scorer.config(), source=files[0])
    return scorer


def imagereward_from(
    state: Mapping[str, Tensor],
    vocabulary: str | Path,
    *,
    name: str = "imagereward-v1",
    source: object = "the ImageReward file",
) -> ImageRewardScorer:
    """The scorer of an official ImageReward file's state dict, whose depths it takes.

    Args:
        state: The state dict, with the official names.
        vocabulary: Path of bert-base-uncased's vocab.txt.
        name: What `stablepref.load` calls the model.
        source: What error messages call the state dict.

    Raises:
        WeightsError: Names the missing and unexpected keys, and shapes that differ.
        ValueError: The vocabulary cannot be used.
    """
    ours = imagereward_to_ours(state, source=source)
    with init_empty_weights(include_buffers=False):
        scorer = ImageRewardScorer(read_vocabulary(vocabulary), name=name, **sizes_of(ours))
    assign_weights(scorer, ours, source=source)
    return scorer.eval()


def blip_from(
    state: Mapping[str, Tensor],
    vocabulary: str | Path,
    *,
    name: str = "blip-large",
    source: object = "the BLIP file",
) -> BLIPScorer:
    """The scorer of an official BLIP pre-training state dict, whose depths it takes.

    Args:
        state: The state dict, with the official names.
        vocabulary: Path of bert-base-uncased's vocab.txt.
        name: What `stablepref.load` calls the model.
        source: What error messages call the state dict.

    Raises:
        WeightsError: Names the missing and unexpected keys, and shapes that differ.
        ValueError: The vocabulary cannot be used.
    """
    ours = blip_to_ours(state, source=source)
    with init_empty_weights(include_buffers=False):
        scorer = BLIPScorer(
            read_vocabulary(vocabulary),
            name=name,
            projection_width=len(ours["text_projection.weight"]),
            **sizes_of(ours),
        )
    assign_weights(scorer, ours, source=source)
    return scorer.eval()


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Widths and depths of the towers, read off converted weights."""
    return {
        "vision_width": state["vision.norm.weight"].shape[0],
        "vision_depth": sum(key.endswith("attn.qkv.weight") for key in state),
        "text_width": state["text.norm.weight"].shape[0],
        "text_depth": sum(key.endswith("self_attention.query.weight") for key in state),
    }


def check_sizes(entry: Entry, config: Mapping[str, Any], *, source: Path) -> None:
    """A file that lost whole blocks would otherwise pass for a shallower model."""
    wrong = {k: config[k] for k, v in entry.sizes.items() if config[k] != v}
    if wrong:
        expected = {k: entry.sizes[k] for k in wrong}
        msg = f"{source} does not fit {entry.name}: it has {wrong}, expected {expected}"
        raise WeightsError(msg)
