"""A VQAScore out of a model's name or folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from huggingface_hub.constants import ENDPOINT
from PIL import Image

from stablepref.models.vqa.conversation import Conversation
from stablepref.models.vqa.forms import choice_of
from stablepref.models.vqa.preprocess import VisionPreprocess
from stablepref.models.vqa.scorer import VQAScorer
from stablepref.runtime.inference import inference
from stablepref.weights.errors import WeightsError
from stablepref.weights.hub import UnavailableError
from stablepref.weights.network import first_line, require_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stablepref.models.entry import Entry
    from stablepref.models.vqa.forms import Form

TESTED: Final = ("qwen2_5_vl", "qwen3_vl", "idefics3")
"""Kinds of models that tests compare with their own forward; others are compared when loaded."""
LOWEST: Final = 5
"""Major version of transformers whose models give image features in one form."""
TOLERANCE: Final = 0.02
"""Of a logit, as a share of the largest, between a model's parts and its own forward; rounding in
bfloat16 takes up to about half of it."""


def build_vqa(entry: Entry, files: Sequence[Path]) -> VQAScorer:
    """The scorer of a name such as "vqa:Qwen/Qwen2.5-VL-7B-Instruct,form=t2v-3.1"."""
    del files  # transformers finds them
    model, form = choice_of(entry.name)
    return load_vqa(model, form, name=entry.name)


def load_vqa(model: str, form: Form, *, name: str) -> VQAScorer:
    """VQAScore with a model that transformers loads, on the CPU, in the number type of its file.

    No code of a repository is run.

    Args:
        model: A folder, or a repository of the hub.
        form: What is asked.
        name: What the scorer is called.

    Raises:
        ImportError: transformers is missing or too old.
        UnavailableError: The model is not here and cannot be downloaded.
        WeightsError: The folder holds no image-text-to-text model, or its weights do not fit.
        ValueError: The form cannot be had with this model.
    """
    transformers = _transformers()
    where = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
    local = where != model or Path(where).is_dir()
    if not local:
        try:
            require_network(ENDPOINT)
        except OSError:
            local = True  # what the hub's cache has
    try:
        processor = transformers.AutoProcessor.from_pretrained(where, local_files_only=local)
        network, report = transformers.AutoModelForImageTextToText.from_pretrained(
            where, local_files_only=local, dtype="auto", output_loading_info=True
        )
    except OSError as error:  # what transformers raises for a missing file or repository
        msg = f"cannot load {name} ({first_line(error)})"
        raise (WeightsError if Path(where).is_dir() else UnavailableError)(msg) from error
    except (ValueError, KeyError, RuntimeError) as error:
        msg = (
            f"{name} is no image-text-to-text model that transformers {transformers.__version__} "
            f"loads ({first_line(error)})"
        )
        raise WeightsError(msg) from error
    absent = sorted(report.get("missing_keys", ()))
    if absent:
        msg = f"{name}: the file lacks {len(absent)} weights, such as {absent[0]}"
        raise WeightsError(msg)
    return with_model(network, processor, form, name=name)


def with_model(model: Any, processor: Any, form: Form, *, name: str) -> VQAScorer:  # noqa: ANN401
    """VQAScore with a model and a processor of transformers that are there already.

    Args:
        model: An image-text-to-text model. Its `get_image_features` also takes features afterwards.
        processor: The model's own.
        form: What is asked.
        name: What the scorer is called.

    Raises:
        ValueError: The model cannot be asked in this way.
    """
    image_token = getattr(model.config, "image_token_id", None)
    if not isinstance(image_token, int) or not hasattr(processor, "image_processor"):
        msg = (
            f"{name} is a {model.config.model_type}, which has no token that stands for an image; "
            "expected a model such as Qwen2.5-VL, Qwen3-VL, LLaVA or SmolVLM"
        )
        raise ValueError(msg)
    conversation = Conversation(processor, image_token, name=name)
    preprocess = VisionPreprocess(conversation, resize_first=form.resize_first)
    scorer = VQAScorer(model, conversation, preprocess, form, name=name).eval()
    if model.config.model_type not in TESTED:
        check_parts(scorer)
    return scorer


def check_parts(scorer: VQAScorer) -> None:
    """Compare the scorer's own way through a model with the model's forward, on one picture.

    Raises:
        ValueError: They differ: image and text depend on each other in a way that is not known.
    """
    levels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    picture, question = Image.fromarray(levels), "Is this noise?"
    conversation = scorer.conversation
    batch = conversation.processor(
        text=[conversation.text(question)], images=[picture], return_tensors="pt"
    )
    with inference(scorer):
        whole = scorer.model(**batch.to(scorer.device, scorer.dtype)).logits[0, -1].float()
        features = scorer.encode_inputs([conversation.image(picture)])
        parts = scorer.next_logits(features, scorer.encode_questions([question]))[0].float()
    if whole.shape != parts.shape or not bool(
        torch.isfinite(whole).all() and (whole - parts).abs().max() <= TOLERANCE * whole.abs().max()
    ):
        msg = (
            f"{scorer.name} is a {scorer.model.config.model_type}, whose forward gives other "
            "numbers than its image features and its text put together: it cannot be used here"
        )
        raise ValueError(msg)


def _transformers() -> Any:  # noqa: ANN401 - the module
    try:
        import transformers  # noqa: PLC0415
    except ModuleNotFoundError as error:
        msg = "vqa: needs transformers: pip install 'stablepref[vlm]'"
        raise ImportError(msg) from error
    if int(transformers.__version__.partition(".")[0]) < LOWEST:
        msg = (
            f"vqa: needs transformers {LOWEST} or later, {transformers.__version__} is installed: "
            "pip install -U transformers"
        )
        raise ImportError(msg)
    return transformers
