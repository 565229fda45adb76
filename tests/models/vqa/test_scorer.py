"""VQAScore beside transformers' own `generate`, on tiny random weights."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_vlm import PENALTY
from PIL import Image

import stablepref
from stablepref.data.groups import RankedGroup
from stablepref.evaluation.evaluate import evaluate
from stablepref.integrations.ensemble import Ensemble
from stablepref.integrations.monitor import diversity
from stablepref.models.vqa.answers import Answers
from stablepref.models.vqa.forms import FORMS
from stablepref.models.vqa.scorer import VQAScorer

Load = Callable[..., VQAScorer]
PROMPTS = ("a red circle", "two stars", "é 日本 {x}", "a blue square in the sun, far away")
QWEN = ("qwen2.5", "qwen3")


def generated(
    scorer: VQAScorer, image: Image.Image, question: str, forced: Sequence[int] = ()
) -> dict[str, torch.Tensor]:
    """Logits and processed scores of the token that `generate` adds after some forced ones."""
    processor, model = scorer.conversation.processor, scorer.model
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    batch = processor(text=[text], images=[image], return_tensors="pt")
    if forced:
        more = torch.tensor([forced])
        fill = {"input_ids": more, "attention_mask": torch.ones_like(more)}
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if name in batch:
                batch[name] = torch.cat([batch[name], fill.get(name, torch.zeros_like(more))], 1)
    options: dict[str, Any] = {"output_scores": True, "output_logits": True}
    with torch.no_grad():
        out: Any = model.generate(  # type: ignore[operator]
            **batch, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, **options
        )
    return {"logits": out.logits[0][0], "scores": out.scores[0][0]}


def resized(image: Image.Image, factor: int) -> Image.Image:
    """As qwen_vl_utils resizes, by transformers' copy of its rule."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize  # noqa: PLC0415

    bounds = {"min_pixels": 4 * factor**2, "max_pixels": 16384 * factor**2}
    height, width = smart_resize(image.height, image.width, factor=factor, **bounds)
    return image.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["qwen2.5", "qwen3", "idefics3", "llava"])
def test_scores_are_those_of_generate(
    loaded: Load, pictures: list[Image.Image], kind: str, form: str
) -> None:
    if kind not in QWEN and form.startswith("t2v"):
        pytest.skip("t2v_metrics has forms for Qwen-VL")
    scorer = loaded(kind, form)
    chosen = FORMS[form]
    tokenizer = scorer.conversation.tokenizer
    first = list(dict.fromkeys(tokenizer(one)["input_ids"][0] for one in chosen.answers))
    expected = []
    for image, prompt in zip(pictures, PROMPTS, strict=True):
        shown = image
        if form.startswith("t2v"):
            shown = resized(image, 28 if kind == "qwen2.5" else 32)
        found = generated(scorer, shown, chosen.question.replace("{}", prompt))
        values = found["scores" if chosen.processed else "logits"]
        expected.append(values.softmax(dim=-1)[first].sum())
    reference = torch.stack(expected)
    torch.testing.assert_close(
        scorer.score(pictures, PROMPTS), reference, rtol=2e-4, atol=1e-8
    )  # a batch of all
    single = [scorer.score(one, prompt) for one, prompt in zip(pictures, PROMPTS, strict=True)]
    torch.testing.assert_close(torch.cat(single), reference, rtol=2e-4, atol=1e-8)


@pytest.mark.parametrize("kind", ["qwen2.5", "qwen3", "idefics3"])
@pytest.mark.parametrize("processed", [False, True])
def test_answers_of_several_tokens_are_read_token_by_token(
    loaded: Load, pictures: list[Image.Image], kind: str, processed: bool
) -> None:
    scorer = loaded(kind, "geneval2" if processed else "clean")
    question = "How many red circles?"
    encode = scorer.conversation.tokenizer
    spellings = [tuple(encode(text)["input_ids"]) for text in ("twenty stars", "twenty", "Yes")]
    assert len(spellings[0]) > 2
    logs = {}
    for spelling in spellings:
        logs[spelling] = [
            generated(scorer, pictures[1], question, spelling[:place])[
                "scores" if processed else "logits"
            ].log_softmax(dim=-1)[token]
            for place, token in enumerate(spelling)
        ]
    with torch.no_grad():
        features = scorer.encode_inputs([scorer.preprocess.exact(pictures[1])] * 2)
        questions = scorer.encode_questions([question] * 2)
        several = Answers(tuple(spellings), "whole")
        mean = Answers((spellings[0],), "mean")
        whole, geometric = scorer.answer(features, questions, [several, mean])
    torch.testing.assert_close(
        whole,
        torch.stack([torch.stack(one).sum().exp() for one in logs.values()]).sum(),
        rtol=5e-4,
        atol=0.0,
    )
    torch.testing.assert_close(
        geometric, torch.stack(logs[spellings[0]]).mean().exp(), rtol=5e-4, atol=0.0
    )


def test_the_penalty_and_the_positions_matter(loaded: Load, pictures: list[Image.Image]) -> None:
    """What the tests above would not notice if it changed nothing."""
    assert PENALTY > 1
    clean, processed = (loaded("qwen2.5", form) for form in ("clean", "t2v-3.1"))
    fitting = pictures[:1]
    assert (clean.score(fitting, "a") / processed.score(fitting, "a") - 1).abs().item() > 0.01
    features = clean.encode_inputs([clean.preprocess.exact(pictures[0])])
    flat = features.clone()
    flat[:, 0, 1:4] = 0  # without a grid all positions are on one line
    question = clean.encode_prompts(["a"])
    with torch.no_grad():
        one, other = (clean.match(each, question) for each in (features, flat))
    assert (one / other - 1).abs().item() > 0.01


@pytest.mark.parametrize("kind", [*QWEN, "llava"])
def test_gradients_to_the_pixels(loaded: Load, kind: str) -> None:
    scorer = loaded(kind)
    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 61, 90, generator=random) * 0.8 + 0.1
    pixels.requires_grad_()
    scorer(pixels, PROMPTS[:2]).sum().backward()
    assert pixels.grad is not None
    direction = pixels.grad / pixels.grad.norm()
    step = 0.05
    with torch.no_grad():
        ends = [scorer(pixels + sign * step * direction, PROMPTS[:2]).sum() for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(slope, pixels.grad.norm(), rtol=0.02, atol=0.0)


@pytest.mark.parametrize("kind", QWEN)
def test_float_pixels_score_as_their_picture(
    loaded: Load, pictures: list[Image.Image], kind: str
) -> None:
    from torchvision.transforms.functional import to_tensor  # noqa: PLC0415

    scorer = loaded(kind)
    with torch.no_grad():
        found = scorer(to_tensor(pictures[0])[None], PROMPTS[:1])
    tolerance = 1e-4 if kind == "qwen2.5" else 0.1  # only the first is not resized
    torch.testing.assert_close(
        found, scorer.score(pictures[:1], PROMPTS[0]), rtol=tolerance, atol=0.0
    )


def test_squares_of_clip_score_as_their_picture(loaded: Load) -> None:
    from torchvision.transforms.functional import to_tensor  # noqa: PLC0415

    scorer = loaded("llava")
    levels = torch.randint(0, 256, (56, 56, 3), generator=torch.Generator().manual_seed(3))
    picture = Image.fromarray(levels.byte().numpy())
    pixels = to_tensor(picture)[None]
    with torch.no_grad():
        found = scorer(pixels, PROMPTS[:1])
    expected = scorer.score(picture, PROMPTS[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0.0)
    # Views are cut from the pixels in the same way, here each of them the whole picture.
    views = scorer.preprocess(pixels, torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 2]))[0]
    torch.testing.assert_close(
        scorer.score_inputs(views, [PROMPTS[0]] * 2), expected.expand(2), rtol=1e-4, atol=0.0
    )


def test_other_processors_refuse_gradients(loaded: Load) -> None:
    pixels = torch.rand(1, 3, 60, 60, requires_grad=True)
    with pytest.raises(TypeError, match="no gradient"):
        loaded("idefics3")(pixels, ["a"])


def test_an_image_is_encoded_once_for_all_prompts(
    loaded: Load, pictures: list[Image.Image]
) -> None:
    scorer = loaded("qwen3")
    seen = []
    tower = scorer.model.model.visual  # type: ignore[union-attr]
    handle = tower.register_forward_hook(lambda *_: seen.append(1))
    try:
        matrix = scorer.score_matrix(pictures, PROMPTS, batch_size=4)
    finally:
        handle.remove()
    assert len(seen) == 1
    for column, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(
            matrix[:, column], scorer.score(pictures, prompt), rtol=1e-4, atol=0.0
        )


def test_evaluation_ensemble_and_views(loaded: Load, pictures: list[Image.Image]) -> None:
    scorer = loaded("qwen2.5")
    groups = [RankedGroup(prompt, tuple(pictures[:3]), (1, 2, 3)) for prompt in PROMPTS[:2]]
    report = evaluate(scorer, groups, perturbations=("resize-0.5",))
    assert report is not None
    both = Ensemble([scorer, loaded("qwen3")])
    expected = (scorer.score(pictures, "a") + loaded("qwen3").score(pictures, "a")) / 2
    torch.testing.assert_close(both.score(pictures, "a"), expected, rtol=1e-5, atol=0.0)
    best = scorer.rank(pictures, "a", views=2)
    assert len(best[0].view_scores) == 3
    assert best[0].score >= best[-1].score
    with pytest.raises(ValueError, match="differ in size"):
        diversity(scorer, pictures, ["a"] * len(pictures))


def test_rotary_tables_stay_exact_in_bfloat16(loaded: Load, pictures: list[Image.Image]) -> None:
    scorer = deepcopy(loaded("qwen2.5"))
    before = scorer.score(pictures, "a")
    tables = {name: table.clone() for name, table in scorer.named_buffers() if "inv_freq" in name}
    assert tables
    low = scorer.to(torch.bfloat16)
    for name, table in low.named_buffers():
        if name in tables:
            torch.testing.assert_close(table, tables[name], rtol=0, atol=0)
    torch.testing.assert_close(low.score(pictures, "a"), before, rtol=0.2, atol=0.0)
    back = loaded("qwen2.5").score(pictures, "a")
    torch.testing.assert_close(back, before, rtol=0, atol=0)  # the copy's change stays its own


def test_a_prompt_with_the_image_token_is_refused(
    loaded: Load, pictures: list[Image.Image]
) -> None:
    with pytest.raises(ValueError, match="none in the text"):
        loaded("qwen2.5").score(pictures, "<|image_pad|>")


def test_the_folder_is_that_of_transformers(loaded: Load, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="vqa:FOLDER"):
        loaded("qwen2.5").save_pretrained(tmp_path)


def test_load_by_name(folders: dict[str, Path], pictures: list[Image.Image]) -> None:
    question = "Is it {}, or not?"
    scorer = stablepref.load(
        f"vqa:{folders['qwen2.5']},form=t2v-3.0,question={question}", device="cpu", dtype="float32"
    )
    assert isinstance(scorer, VQAScorer)
    assert (scorer.form.name, scorer.form.question) == ("t2v-3.0", question)
    found = generated(scorer, resized(pictures[1], 28), "Is it a star, or not?")
    expected = found["scores"].softmax(-1)[scorer.conversation.tokenizer("Yes")["input_ids"][0]]
    torch.testing.assert_close(
        scorer.score(pictures[1], "a star")[0], expected, rtol=2e-4, atol=0.0
    )
