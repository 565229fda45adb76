"""Reference scores from the official code of the CLIP family, in its own packages."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from .cases import companion_clip, official_state, write_official_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

Blocks = tuple[int, int]


def openai_clip(
    name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]
) -> Tensor:
    """OpenAI's `clip`: `logits_per_image` of the model, as in its README."""
    model, preprocess, clip = _openai_model(official_state(name, blocks))
    images = torch.stack([preprocess(picture) for picture in pictures])
    return model(images, clip.tokenize(list(prompts), truncate=True))[0]


def hps_v1(name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]) -> Tensor:
    """The README of tgxs002/align_sd: OpenAI's `clip` with the file's `state_dict` loaded into it.

    It prints the cosine; the score is the cosine times the logit scale it was trained with.
    """
    model, preprocess, clip = _openai_model(companion_clip(blocks))
    with TemporaryDirectory() as folder:
        (weights,) = write_official_files(name, blocks, Path(folder))
        model.load_state_dict(torch.load(weights)["state_dict"])
    images = torch.stack([preprocess(picture) for picture in pictures])
    image_features = model.encode_image(images)
    text_features = model.encode_text(clip.tokenize(list(prompts), truncate=True))
    image_features = image_features / image_features.norm(dim=-1, keepdim=True)
    text_features = text_features / text_features.norm(dim=-1, keepdim=True)
    return model.logit_scale.exp() * image_features @ text_features.T


def hps_v2(name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]) -> Tensor:
    """`hpsv2.img_score.score`, which prints the cosine, times the model's logit scale."""
    img_score = importlib.import_module("hpsv2.img_score")
    fork = importlib.import_module("hpsv2.src.open_clip")
    with TemporaryDirectory() as folder:
        _register_blocks(fork, "ViT-H-14", blocks, Path(folder))
        # What initialize_model() does, without the download of weights that are replaced anyway.
        model, _, preprocess = fork.create_model_and_transforms(
            "ViT-H-14",
            None,
            precision="amp",
            device="cpu",
            light_augmentation=True,
            output_dict=True,
        )
        img_score.model_dict.update(model=model, preprocess_val=preprocess)
        (weights,) = write_official_files(name, blocks, Path(folder))
        cosines = [img_score.score(list(pictures), prompt, cp=str(weights)) for prompt in prompts]
    return torch.tensor(cosines).T * model.logit_scale.exp()


def open_clip_h(
    name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]
) -> Tensor:
    """open_clip itself, as in its README, times the logit scale."""
    open_clip = importlib.import_module("open_clip")
    with TemporaryDirectory() as folder:
        _register_blocks(open_clip, "ViT-H-14", blocks, Path(folder))
        (weights,) = write_official_files(name, blocks, Path(folder))
        model, _, preprocess = open_clip.create_model_and_transforms(
            "ViT-H-14", pretrained=str(weights)
        )
        tokenizer = open_clip.get_tokenizer("ViT-H-14")
    model.eval()
    images = torch.stack([preprocess(picture) for picture in pictures])
    image_features = model.encode_image(images, normalize=True)
    text_features = model.encode_text(tokenizer(list(prompts)), normalize=True)
    return model.logit_scale.exp() * image_features @ text_features.T


def aesthetic(
    name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]
) -> Tensor:
    """LAION's notebooks: the head on the normalised embedding of OpenAI's `clip`."""
    model, preprocess, _ = _openai_model(companion_clip(blocks))
    features = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]))
    x = features.double() / features.double().norm(dim=-1, keepdim=True)
    head = {key: value.double() for key, value in official_state(name, blocks).items()}
    for key in [key for key in head if key.endswith("weight")]:
        x = x @ head[key].T + head[key.replace("weight", "bias")]
    return x.expand(-1, len(prompts))


def pickscore(
    name: str, blocks: Blocks, pictures: Sequence[Image], prompts: Sequence[str]
) -> Tensor:
    """The model card of PickScore: transformers' `CLIPModel`, with Pillow's image processing."""
    transformers = importlib.import_module("transformers")
    width = {"vision": 1280, "text": 1024}
    config = transformers.CLIPConfig(
        projection_dim=1024,
        text_config={
            **_transformers_tower(width["text"], blocks[1]),
            "vocab_size": 49408,
            "eos_token_id": 2,
        },
        vision_config={**_transformers_tower(width["vision"], blocks[0]), "patch_size": 14},
    )
    with TemporaryDirectory() as folder:
        write_official_files(name, blocks, Path(folder))
        config.save_pretrained(folder)
        model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil(), transformers_tokenizer(transformers)
    )
    settings = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
    images = processor.image_processor(list(pictures), return_tensors="pt")
    texts = processor.tokenizer(list(prompts), **settings)
    return model(**images, **texts).logits_per_image


def openai_tokens(prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of OpenAI's `clip.tokenize`, zero-padded to 77."""
    clip = importlib.import_module("clip")
    return clip.tokenize(list(prompts), truncate=True).tolist()


def transformers_tokens(prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of transformers' CLIP tokenizer, as PickScore's model card calls it."""
    tokenizer = transformers_tokenizer(importlib.import_module("transformers"))
    return tokenizer(list(prompts), truncation=True, max_length=77).input_ids


def _openai_model(state: Mapping[str, Tensor]) -> tuple[Any, Any, Any]:
    """Model and preprocessing of `clip.load` on a file of weights, and the package."""
    clip = importlib.import_module("clip")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ViT-L-14.pt"
        torch.save(dict(state), path)
        model, preprocess = clip.load(str(path), device="cpu")
    # `clip.load` rounds every matrix to half precision; the reference is the exact model.
    model.load_state_dict(state)
    return model.eval(), preprocess, clip


def _register_blocks(package: Any, architecture: str, blocks: Blocks, folder: Path) -> None:  # noqa: ANN401 (a module)
    """Give an open_clip (or a fork) its own architecture with another number of blocks."""
    config = package.get_model_config(architecture)
    config["vision_cfg"]["layers"], config["text_cfg"]["layers"] = blocks
    path = folder / f"{architecture}.json"
    path.write_text(json.dumps(config))
    package.add_model_config(path)


def _transformers_tower(width: int, layers: int) -> dict[str, Any]:
    """One tower of the published PickScore configuration."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    }


def transformers_tokenizer(transformers: Any) -> Any:  # noqa: ANN401 (a module)
    """CLIP's tokenizer with the vocabulary that open_clip carries (the hub's is the same)."""
    vocabulary = importlib.import_module("open_clip").SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    ids = {names.get(token, token): i for token, i in vocabulary.encoder.items()}
    merges = sorted(vocabulary.bpe_ranks, key=vocabulary.bpe_ranks.__getitem__)
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(ids))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (Path(folder) / "merges.txt").write_text(os.linesep.join(lines) + os.linesep)
        return transformers.CLIPTokenizerFast.from_pretrained(folder)
