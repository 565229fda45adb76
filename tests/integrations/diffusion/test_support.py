"""The table of pipelines in the documentation is that of the rows, and the rows are diffusers'."""

import diffusers
import pytest
from helpers.places import ROOT
from helpers.tiny_finetune import pipeline, quick

from stablepref.integrations.diffusion.families import FAMILIES
from stablepref.integrations.diffusion.support import support_table
from stablepref.integrations.finetune.run import check_trainable


def test_the_page_has_the_table_as_it_is() -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    assert support_table() in page, "write support_table() into docs/pipelines.md"


def test_every_row_is_a_pipeline_of_diffusers() -> None:
    for name in FAMILIES:
        takes = vars(getattr(diffusers, name))["__call__"].__wrapped__.__code__.co_varnames
        assert "prompt" in takes
        assert FAMILIES[name].pictures or FAMILIES[name].guidance in takes
        assert set(FAMILIES[name].arguments) <= set(takes)


def test_what_loads_no_lora_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PixArtSigmaPipeline loads no LoRA; train .* rank=0"):
        check_trainable(pipeline("pixart"), quick())
    check_trainable(pipeline("flux"), quick())
