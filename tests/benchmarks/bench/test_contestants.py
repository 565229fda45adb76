"""Models as typed, LoRAs on them, and folders and manifests of finished images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_pipelines import SHORT, build
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from stablepref.benchmarks.bench.contestants import (
    Contestant,
    Lora,
    parse_contestant,
    parse_contestants,
)
from stablepref.benchmarks.bench.image_folders import finished_pictures
from stablepref.benchmarks.bench.pipelines import load_contestant, pipeline_digest
from stablepref.data.prompts import ListedPrompt
from stablepref.images.sources import UnusableImageError
from stablepref.integrations.diffusion.load import load_pipeline

PROMPTS = [ListedPrompt("00000", "x"), ListedPrompt("00001", "y"), ListedPrompt("00002", "x")]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """What tells a pipeline's folder from one of images."""
    folder = tmp_path / "pipe"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


def test_what_is_typed(pipeline: Path) -> None:
    assert parse_contestant(str(pipeline)) == Contestant("pipe", str(pipeline))
    hub = parse_contestant("stabilityai/stable-diffusion-2")
    assert (hub.name, hub.source) == ("stable-diffusion-2", "stabilityai/stable-diffusion-2")
    assert not hub.finished
    text = f"my one={pipeline},lora=a/b@0.5,lora=user/c,steps=20,guidance=1.5,eta=1,negative=dull"
    made = parse_contestant(text)
    assert made.name == "my one"
    assert made.loras == (Lora("a/b", 0.5), Lora("user/c", 1.0))
    assert made.arguments == {
        "num_inference_steps": 20, "guidance_scale": 1.5, "eta": 1, "negative_prompt": "dull"
    }  # fmt: skip
    odd = pipeline.rename(pipeline.with_name("lr=1e-5"))
    assert parse_contestant(f"one={odd}").name == "one"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere", "there is no 'nowhere' here; expected the folder or hub repository"),
        ("a=", "there is no '' here"),
        ("a/b=user/x", "the name 'a/b' may only have letters"),
        ("user/x,steps", "'steps' is not of the form KEY=VALUE"),
        ("user/x,lora=a@b", "'b' is not a weight; expected a number"),
    ],
)
def test_what_is_no_model(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_contestant(text)


def test_models_have_names_of_their_own(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two models are called 'pipe'"):
        parse_contestants([str(pipeline), f"pipe={pipeline}"])
    with pytest.raises(ValueError, match="no model"):
        parse_contestants([])
    images = tmp_path / "images"
    images.mkdir()
    with pytest.raises(ValueError, match="finished images take no settings; drop steps=3"):
        parse_contestant(f"{images},steps=3")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match="a single file is neither a pipeline nor a manifest"):
        parse_contestant(f"a={tmp_path / 'notes.txt'}")


def test_loras_are_put_on_together(tmp_path: Path) -> None:
    pipe, _ = build("sd")
    base = tmp_path / "base"
    pipe.save_pretrained(base)
    for seed in range(2):
        pipe, _ = build("sd")
        torch.manual_seed(seed)
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
        from diffusers.utils import convert_state_dict_to_diffusers  # noqa: PLC0415

        weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
        pipe.save_lora_weights(tmp_path / f"lora{seed}", unet_lora_layers=weights)

    def image(settings: str) -> tuple[torch.Tensor, dict[str, str]]:
        contestant = parse_contestant(f"a={base}{settings}")
        made = load_contestant(contestant, SHORT, dtype=None, device=torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        arguments = {**SHORT, "output_type": "pt"}
        return made("a dog", generator=generator, **arguments).images, pipeline_digest(made)

    plain, digest = image("")
    both, _ = image(f",lora={tmp_path / 'lora0'}@0.5,lora={tmp_path / 'lora1'}@0.5")
    off, _ = image(f",lora={tmp_path / 'lora0'}@0,lora={tmp_path / 'lora1'}@0")
    one, other = image(f",lora={tmp_path / 'lora0'}")
    torch.testing.assert_close(off, plain)
    for changed in (both, one):
        assert (changed - plain).abs().max() > 1e-4
    assert (both - one).abs().max() > 1e-4
    assert digest["pipeline"] == "StableDiffusionPipeline"
    assert digest["vae"] == other["vae"]
    assert digest["unet"] != other["unet"]


def test_a_pipeline_that_was_compiled_is_the_same_pipeline() -> None:
    pipe, _ = build("sd")
    plain = pipeline_digest(pipe)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    assert pipeline_digest(pipe) == plain


def test_commas_in_paths_and_values(tmp_path: Path) -> None:
    base, lora = tmp_path / "a, b,steps=1" / "pipe", tmp_path / "x,lr=1e-5@2"
    touch(base, "model_index.json")
    touch(lora, "a,b.safetensors")
    made = parse_contestant(
        f"one={base},lora={lora},lora={lora / 'a,b.safetensors'}@0.5,negative=blurry, dull,eta=1"
    )
    assert made.source == str(base)
    assert made.loras == (Lora(str(lora)), Lora(str(lora / "a,b.safetensors"), 0.5))
    assert made.arguments == {"negative_prompt": "blurry, dull", "eta": 1}


def test_a_single_file_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "model.safetensors")
    says = r"model.safetensors is a single-file checkpoint; .*from_single_file\(FILE\)"
    with pytest.raises(ValueError, match=says):
        parse_contestant(f"a={tmp_path / 'model.safetensors'},steps=2")
    with pytest.raises(ValueError, match=says):
        load_pipeline(str(tmp_path / "model.safetensors"), dtype=None, device=torch.device("cpu"))


def lora_pipe(alpha: int) -> tuple[Any, dict[str, torch.Tensor]]:
    """A pipeline with a LoRA of rank 2, and peft's names of its matrices."""
    pipe, _ = build("sd")
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=alpha, target_modules=["to_q"], init_lora_weights=False)
    pipe.unet.add_adapter(config)
    return pipe, get_peft_model_state_dict(pipe.unet)


@pytest.mark.parametrize("kind", ["peft", "kohya"])
def test_loras_of_peft_and_kohya(kind: str, tmp_path: Path) -> None:
    """The picture is that of the pipeline in which the LoRA was made, alpha included."""
    pipe, state = lora_pipe(alpha=6)
    image = picture(pipe)
    base, folder = tmp_path / "base", tmp_path / "lora"
    build("sd")[0].save_pretrained(base)
    folder.mkdir()
    if kind == "peft":
        named = {f"base_model.model.{key}": weight.contiguous() for key, weight in state.items()}
        save_file(named, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6}))
    else:
        names = {"lora_A": "lora_down", "lora_B": "lora_up"}
        named = {}
        for key, weight in state.items():
            layer, matrix, _ = key.rsplit(".", 2)
            own = "lora_unet_" + layer.replace(".", "_")
            named[f"{own}.{names[matrix]}.weight"] = weight.contiguous()
            named[f"{own}.alpha"] = torch.tensor(6.0)
        save_file(named, folder / "my_style.safetensors")
    for where in (folder, next(folder.glob("*.safetensors"))):
        contestant = parse_contestant(f"a={base},lora={where}")
        made = load_contestant(contestant, SHORT, dtype=None, device=torch.device("cpu"))
        torch.testing.assert_close(picture(made), image, atol=1e-5, rtol=0)
    assert (picture(build("sd")[0]) - image).abs().max() > 1e-3


def picture(pipe: Any) -> torch.Tensor:  # noqa: ANN401 (diffusers has no types)
    generator = torch.Generator().manual_seed(0)
    made: torch.Tensor = pipe("a dog", generator=generator, **SHORT, output_type="pt").images
    return made


def test_a_lora_that_fits_by_half_is_an_error_that_counts(tmp_path: Path) -> None:
    _, state = lora_pipe(alpha=2)
    total = len(state) // 2
    build("sd")[0].save_pretrained(tmp_path / "base")
    extra = {f"unet.{key}": weight.contiguous() for key, weight in state.items()}
    extra |= {f"unet.other.{key}": weight.clone() for key, weight in state.items()}
    save_file(extra, touch(tmp_path / "half") / "pytorch_lora_weights.safetensors")
    contestant = parse_contestant(f"a={tmp_path / 'base'},lora={tmp_path / 'half'}")
    with pytest.raises(
        ValueError, match=f"{total} of the {2 * total} layers of the LoRA .*half fit"
    ):
        load_contestant(contestant, SHORT, dtype=None, device=torch.device("cpu"))
    touch(tmp_path / "two", "a.safetensors", "b.safetensors")
    contestant = parse_contestant(f"a={tmp_path / 'base'},lora={tmp_path / 'two'}")
    with pytest.raises(ValueError, match=r"holds a.safetensors, b.safetensors; name one file"):
        load_contestant(contestant, SHORT, dtype=None, device=torch.device("cpu"))


def test_arguments_are_checked_before_anything_is_made(tmp_path: Path) -> None:
    pipe, _ = build("sd")
    pipe.save_pretrained(tmp_path / "base")
    contestant = parse_contestant(f"{tmp_path / 'base'},stepz=2")
    with pytest.raises(ValueError, match="no argument 'stepz'"):
        load_contestant(contestant, contestant.arguments, dtype=None, device=torch.device("cpu"))


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def found(folder: Path, prompts: list[ListedPrompt], images: int) -> list[tuple[int, int, str]]:
    """Place, number and file of each picture that there is."""
    return [
        (one.prompt, one.number, one.image.relative_to(folder).as_posix())
        for one in finished_pictures("m", folder, prompts, images)
        if isinstance(one.image, Path)
    ]


def test_layouts_of_folders(tmp_path: Path) -> None:
    flat = touch(tmp_path / "flat", "00000.jfif", "00001.PNG", "00001-1.avif", "a.heic", "x.png")
    with pytest.warns(
        UserWarning, match="1 images are named after no prompt of this set: x$|"
    ) as warned:
        assert found(flat, PROMPTS, 2) == [
            (0, 0, "00000.jfif"), (1, 0, "00001.PNG"), (1, 1, "00001-1.avif")
        ]  # fmt: skip
    told = [str(warning.message) for warning in warned]
    assert any("1 images are named after no prompt of this set" in text for text in told)
    assert any("skipped 1 file(s) that are not images: 1 .heic" in text for text in told)
    with pytest.warns(UserWarning, match="1 images more than the 1 of each prompt"):
        assert [one[1] for one in found(flat, PROMPTS, 1)] == [0, 0]
    styles = [ListedPrompt("anime/00000", "x"), ListedPrompt("photo/00000", "y")]
    hpdv2 = touch(tmp_path / "hpdv2", "anime/00000.jpg", "photo/00000.jpg", "photo/00001.jpg")
    assert found(hpdv2, styles, 1) == [(0, 0, "anime/00000.jpg"), (1, 0, "photo/00000.jpg")]
    names = ("00000/samples/0000.png", "00000/samples/0001.png", "00000/grid.png")
    geneval = touch(tmp_path / "geneval", *names)
    assert found(geneval, PROMPTS, 4) == [(0, 0, names[0]), (0, 1, names[1])]


def test_a_prompt_without_image_says_so(tmp_path: Path) -> None:
    folder = touch(tmp_path / "flat", "00000.jpg", "00002.jpg")
    missing = finished_pictures("m", folder, PROMPTS, 2)[1]
    assert missing.key == ("m", 1, 0)
    assert isinstance(missing.image, UnusableImageError)
    assert "has no image for the prompt 00001" in str(missing.image)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no image for these prompts; expected .*/00000.jpg"):
        finished_pictures("m", touch(tmp_path / "a", "cat.jpg"), PROMPTS, 1)
    with pytest.raises(ValueError, match="two images of one name"):
        finished_pictures("m", touch(tmp_path / "b", "00000.jpg", "00000.png"), PROMPTS, 1)


def test_manifests_deal_rows_to_equal_prompts(tmp_path: Path) -> None:
    folder = touch(tmp_path, "a.png", "b.png", "c.png", "d.png")
    rows = [("a.png", "x"), ("b.png", "x"), ("c.png", "x"), ("d.png", "y"), ("d.png", "z")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"image": i, "prompt": p}) + "\n" for i, p in rows))
    assert parse_contestant(str(path)) == Contestant("rows", str(path))
    with pytest.warns(UserWarning, match="1 rows have prompts that are not in this set"):
        pictures = finished_pictures("m", path, PROMPTS, 2)
    assert [(one.prompt, one.number, Path(str(one.image)).name) for one in pictures] == [
        (0, 0, "a.png"), (0, 1, "c.png"), (1, 0, "d.png"), (2, 0, "b.png")
    ]  # fmt: skip
    assert folder == tmp_path
    with pytest.warns(UserWarning, match="1 images more than the 1 .* ask for more with --images"):
        assert [one.number for one in finished_pictures("m", path, PROMPTS, 1)] == [0, 0, 0]
    path.write_text('{"image": "a.png"}\n')
    with pytest.raises(ValueError, match=r"rows.jsonl:1: there is no column for the prompt"):
        finished_pictures("m", path, PROMPTS, 1)
    path.write_text('{"image": "a.png", "prompt": "z"}\n')
    with (
        pytest.warns(UserWarning, match="not in this set"),
        pytest.raises(ValueError, match=r"expected a row of .* with this prompt"),
    ):
        finished_pictures("m", path, PROMPTS, 1)
