"""Families of scorers: names that begin with a prefix and go on with a model of the user's choice.

Each is an entry whose name shows how the names of its members are written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from stablepref.models.entry import LOGIT, Entry

FAMILIES: Final = (
    Entry(
        name="open_clip:NAME/PRETRAINED",
        builder="stablepref.models.openclip.scorer:build_open_clip",
        kind="open_clip",
        backbone="any architecture of open_clip: SigLIP 2, DFN, EVA, CoCa, MobileCLIP, ...",
        protocol="the model's own",
        unit=f"{LOGIT}, plus logit_bias where it has one",
        licence="the model's own",
        relation="the logits of open_clip's own forward; PRETRAINED is a tag of "
        "open_clip.list_pretrained() or a file, and open_clip:hf-hub:user/repo a repository",
        page="https://github.com/mlfoundations/open_clip",
    ),
    Entry(
        name="vqa:MODEL",
        builder="stablepref.models.vqa.build:build_vqa",
        backbone="any image-text-to-text model of transformers",
        protocol="the model's own",
        unit="probability of the answer",
        licence="the model's own",
        relation="VQAScore: the probability that the model answers Yes to a question about the "
        "prompt; the forms of t2v_metrics and GenEval 2 are chosen by name, as in "
        "vqa:MODEL,form=t2v-3.1",
        page="https://github.com/linzhiqiu/t2v_metrics",
    ),
    *(
        Entry(
            name=f"{scheme}://HOST:PORT/MODEL",
            builder="stablepref.models.remote:open_remote",
            backbone="a model that `stablepref serve` holds",
            protocol="the model's own",
            unit="the model's own",
            licence="the model's own",
            relation="the number of the same model in this process",
        )
        for scheme in ("http", "https")
    ),
    Entry(
        name="judge:MODEL@URL",
        builder="stablepref.integrations.judges.judge:open_judge",
        backbone="any vision-language model behind an OpenAI-compatible endpoint",
        protocol="as they are",
        unit="rating or probability of yes",
        licence="the model's own",
        relation="what the model answers to a template, in words or by log-probabilities",
    ),
)


def family_member(name: str) -> Entry | None:
    """The entry of a name such as "vqa:Qwen/Qwen2.5-VL-7B-Instruct"; None if it has no such prefix.

    Whether there is such a model is found out when it is loaded.
    """
    prefix, colon, rest = name.partition(":")
    if not colon or not rest:
        return None
    for family in FAMILIES:
        if family.name.partition(":")[0] == prefix:
            return replace(family, name=name)
    return None
