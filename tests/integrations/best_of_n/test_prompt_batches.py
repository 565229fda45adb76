"""Pictures of several prompts: what shares a batch, and that every picture is as if alone."""

import threading
from collections.abc import Sequence

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    StableDiffusionPipeline,
)
from helpers.candidates import apart
from helpers.tiny_pipelines import KINDS, build, often_or_slow
from PIL import Image

from stablepref.integrations.best_of_n import candidates, grouping
from stablepref.integrations.best_of_n.candidates import generate_all
from stablepref.integrations.best_of_n.grouping import Wanted, batch_size_for, in_groups
from stablepref.integrations.best_of_n.making import Generated, Unmade, may_run_twice


def wanted_of(prompts: Sequence[str], pictures: int) -> list[Wanted]:
    """So many pictures of each prompt, with seeds from 7."""
    return [
        Wanted(place * pictures + i, prompt, 7 + place * pictures + i)
        for place, prompt in enumerate(prompts)
        for i in range(pictures)
    ]


MIXED = ["a red circle", "a dog", "any green cat left of a blue square", "a dog"]


@pytest.mark.parametrize(
    "kind", often_or_slow([*KINDS, "qwen", "lumina2"], "sd", "sd3", "flux", "qwen")
)
def test_prompts_share_batches_and_every_picture_is_that_of_its_prompt_alone(kind: str) -> None:
    pipe, arguments = build(kind)
    wanted = wanted_of(MIXED, 2)
    batches = list(generate_all(pipe, wanted, batch_size=3, arguments=arguments))
    again = list(generate_all(pipe, wanted, batch_size=3, arguments=arguments))
    order = [[one.index for one in batch] for batch in batches]
    # Qwen-Image pads to the longest: batches hold prompts of equally many tokens.
    by_length = [[0, 1], [2, 3, 6], [7], [4, 5]]
    assert order == (by_length if kind == "qwen" else [[0, 1, 2], [3, 4, 5], [6, 7]])
    for batch, other in zip(batches, again, strict=True):
        for one, same in zip(batch, other, strict=True):
            assert isinstance(one, Generated)
            assert isinstance(same, Generated)
            assert apart(one.image, same.image) == 0  # bit for bit at equal composition
    pipe.set_progress_bar_config(disable=True)
    made = {
        one.index: one.image for batch in batches for one in batch if isinstance(one, Generated)
    }
    for one in wanted:
        generator = torch.Generator().manual_seed(one.seed)
        expected = pipe(one.prompt, generator=generator, **arguments).images[0]
        assert apart(made[one.index], expected) <= 1
    assert apart(made[0], made[2]) > 1


def test_a_negative_prompt_goes_with_several_prompts() -> None:
    pipe, arguments = build("sd")
    call = {**arguments, "negative_prompt": "a cat", "guidance_scale": 4.0}
    (batch,) = generate_all(pipe, wanted_of(MIXED[:2], 1), batch_size=2, arguments=call)
    for i, one in enumerate(batch):
        assert isinstance(one, Generated)
        generator = torch.Generator().manual_seed(7 + i)
        assert apart(one.image, pipe(MIXED[i], generator=generator, **call).images[0]) <= 1


class Renamed(StableDiffusionPipeline):
    """As a pipeline of diffusers without a row, which may pad prompts to the longest of a batch."""

    @torch.no_grad()
    def __call__(self, prompt: object, **rest: object) -> object:
        return super().__call__(prompt, **rest)


def test_what_may_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, _ = build("sd")
    wanted = wanted_of(MIXED, 1)

    def groups(pipe: DiffusionPipeline, **arguments: object) -> list[list[int]]:
        return [[one.index for one in group] for group in in_groups(pipe, wanted, arguments)]

    everything, each = [[0, 1, 2, 3]], [[0], [1, 3], [2]]
    assert groups(pipe, num_inference_steps=2, negative_prompt="a cat") == everything
    assert groups(pipe, timesteps=[9, 1], cross_attention_kwargs={"scale": 0.5}) == everything
    assert groups(pipe, callback_on_step_end=lambda *_: {}) == each
    assert groups(pipe, ip_adapter_image=Image.new("RGB", (8, 8))) == each
    assert groups(pipe, negative_prompt=["a cat"]) == each
    unknown = Renamed(**pipe.components, requires_safety_checker=False)
    assert groups(unknown) == each  # of a user: nothing is known of it
    monkeypatch.setattr(Renamed, "__module__", "diffusers.pipelines.other")
    words = [len(pipe.tokenizer(prompt)["input_ids"]) for prompt in MIXED]
    assert len({words[0], words[1], words[2]}) == 3
    assert groups(unknown) == each  # by their tokens, of which only equal prompts have as many
    wanted[0] = Wanted(0, "a cat", 7)
    assert groups(unknown) == [[0, 1, 3], [2]]


def test_a_batch_of_several_prompts_that_fails_is_made_prompt_by_prompt() -> None:
    pipe, arguments = build("sd")
    call = pipe.encode_prompt

    def picky(prompt: object, *rest: object, **more: object) -> object:
        if "a dog" in (prompt if isinstance(prompt, list) else [prompt]):
            raise KeyError("dog")
        return call(prompt, *rest, **more)

    pipe.encode_prompt = picky
    wanted = wanted_of(MIXED[:3], 2)
    made = list(generate_all(pipe, wanted, batch_size=6, arguments=arguments, keep_going=True))
    assert [type(one) for one in made[0]] == 2 * [Generated] + 2 * [Unmade] + 2 * [Generated]
    del pipe.encode_prompt
    for one, want in zip(made[0], wanted, strict=True):
        assert one.index == want.index
        if isinstance(one, Generated):
            generator = torch.Generator().manual_seed(want.seed)
            expected = pipe(want.prompt, generator=generator, **arguments).images[0]
            assert apart(one.image, expected) <= 1
        else:
            assert isinstance(one.error, KeyError)
    pipe.encode_prompt = picky
    with pytest.raises(KeyError, match="dog"):
        list(generate_all(pipe, wanted, batch_size=6, arguments=arguments))


def test_streams_side_by_side_make_what_one_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments = build("sd")
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    call = {**arguments, "num_inference_steps": 4}
    wanted = wanted_of(MIXED, 4)
    one_by_one = list(generate_all(pipe, wanted, batch_size=2, arguments=call))
    threads = set()
    run = candidates._call

    def seen(one: object, *rest: object) -> object:
        assert one is not pipe
        threads.add(threading.get_ident())
        barrier.wait(60)  # both are within a call, or this fails
        return run(one, *rest)  # type: ignore[arg-type] # handed on

    barrier = threading.Barrier(2)
    monkeypatch.setattr(candidates, "streams_for", lambda *_: 9)
    monkeypatch.setattr(candidates, "_call", seen)
    scheduler = pipe.scheduler
    both = list(generate_all(pipe, wanted, batch_size=2, arguments=call))
    assert len(threads) == 2
    assert pipe.scheduler is scheduler
    for batch, other in zip(one_by_one, both, strict=True):
        for one, same in zip(batch, other, strict=True):
            assert isinstance(one, Generated)
            assert isinstance(same, Generated)
            assert one.index == same.index
            assert apart(one.image, same.image) == 0


def test_modules_with_a_state_do_not_run_twice_at_once() -> None:
    pipe, _ = build("sd")
    assert may_run_twice(pipe, {"num_inference_steps": 2})
    assert not may_run_twice(pipe, {"cross_attention_kwargs": {"scale": 0.5}})
    assert not may_run_twice(pipe, {"callback_on_step_end": print})
    with torch.autocast("cpu"):
        assert not may_run_twice(pipe, {})
    pipe.unet.mid_block._diffusers_hook = object()
    assert not may_run_twice(pipe, {})


def test_the_batch_follows_the_size_of_the_pictures_and_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe, _ = build("sd")
    sizes = {side: batch_size_for(pipe, {"height": side, "width": side}, None)
             for side in (64, 96, 128, 512)}  # fmt: skip
    assert sizes == {64: 20, 96: 8, 128: 5, 512: 4}
    own = pipe.unet.config.sample_size * pipe.vae_scale_factor
    assert batch_size_for(pipe, {}, None) == batch_size_for(
        pipe, {"height": own, "width": own}, None
    )
    assert batch_size_for(pipe, {"height": 512, "width": 512}, 7) == 7
    # 512 x 512 pixels, 8 channels of this decoder, 8 tensors of 4 bytes: 67 MB each.
    one = 512 * 512 * pipe.vae.config.block_out_channels[0] * 8 * 4
    monkeypatch.setattr(grouping, "_free_bytes", lambda _: 7 * one)
    assert batch_size_for(pipe, {"height": 512, "width": 512}, None) == 3
    monkeypatch.setattr(grouping, "_free_bytes", lambda _: 0)
    assert batch_size_for(pipe, {"height": 512, "width": 512}, None) == 1
