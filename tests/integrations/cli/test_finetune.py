"""`stablepref finetune` as a user meets it."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from helpers.commandline import run
from helpers.sd15 import sd15
from helpers.tiny_finetune import pipeline as tiny_pipeline
from PIL import Image

from stablepref.integrations.cli.finetune import read_prompts
from stablepref.integrations.finetune.config import FinetuneConfig

QUICK = (
    *("--steps=2", "--batch-size=2", "--sampling-steps=2", "--last-steps=2", "--guidance=1"),
    *("--height=16", "--width=16", "--samples=1", "--monitor-views=1", "--sample-every=1"),
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline().save_pretrained(folder)
    return folder


def test_a_pipeline_is_fine_tuned_and_a_finished_one_told_again(
    pipeline: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\n\n  a red circle \n")
    (tmp_path / "watched.txt").write_text("a cat\n")
    out = tmp_path / "run"
    arguments = ("finetune", pipeline, "-p", "a blue square", "--prompts", tmp_path / "prompts.txt",
                 "--sample-prompts", tmp_path / "watched.txt", "-s", model, "-s", model,
                 "--views", 1, "--worst", "--held-out", "shapes", "-o", out, *QUICK)  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"pipe.load_lora_weights('{out}/lora')" in done.stdout
    assert "held_out" in done.stdout
    told = json.loads((out / "finetune.json").read_text())
    config = told["config"]
    assert config["reward"] == "tiny+tiny"
    assert (config["reward_views"], config["reward_reduce"]) == (1, "min")
    assert config["prompts"].startswith("3 prompts, ")
    assert config["sample_prompts"].startswith("1 prompts, ")
    assert config["last_steps"] == 2
    AcceleratorState._reset_state(reset_partial_state=True)
    again = run(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["lora"] == str(out / "lora")
    assert found["last"] == told["last"]


def test_several_rewards_with_weights_and_all_weights_trained(
    pipeline: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = run(
        "finetune", pipeline, "-p", "a dog", "-s", model, "-w", 1, "-s", "shapes-clip", "-w", -0.5,
        "-o", out, "--method=nft", "--rank=0", "--pictures-per-prompt=2", "--steps=1",
        "--combine=advantages", *QUICK[1:], "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["lora"], found["denoiser"]) == (None, str(out / "denoiser"))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (row,) = (row for row in rows if "reward" in row)
    assert row["reward"] == pytest.approx(row["reward_tiny"] - 0.5 * row["reward_shapes-clip"])


def test_ranked_pictures_are_trained_on(pipeline: Path, model: Path, tmp_path: Path) -> None:
    for name, level in (("light", 200), ("dark", 20)):
        Image.new("RGB", (20, 16), (level,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "groups.jsonl").write_text(
        '{"prompt": "a dog", "images": ["light.png", "dark.png"], "ranks": [1, 2]}\n'
    )
    done = run(
        "finetune", pipeline, "--data", tmp_path / "groups.jsonl", "-s", model, "-o",
        tmp_path / "run", "--method=dpo", "--dpo-weights=margin", "--steps=1", *QUICK[1:],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["accuracy"] for row in rows if "accuracy" in row] == [0]  # nothing is learnt yet


def test_prompts_to_train_on_come_out_of_every_form_of_file(
    tmp_path: Path, shared_data: Path
) -> None:
    """No form is taken for lines of text: no JSON, no header, no byte-order mark is trained on."""
    cases = shared_data / "cases"
    assert read_prompts(cases / "prompts_bom.tsv") == [
        'a quoted "sign" that says open', "a line\u2028separator inside"
    ]  # fmt: skip
    dogs = ["a brown dog beside a red car", "three candles"]
    assert read_prompts(cases / "dpg_like.csv") == read_prompts(cases / "dpg_prompts") == dogs
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"prompt": " a dog "}\n{"prompt": "a cat"}\n')
    assert read_prompts(lines) == ["a dog", "a cat"]
    text = tmp_path / "text.txt"
    text.write_text("\ufeffa dog\n\n a cat \n", encoding="utf-8")
    assert read_prompts(text) == ["a dog", "a cat"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there is no prompt to train on; expected --prompt"),
        (["--prompts", "blank.txt"], "blank.txt holds no prompt"),
        (["--prompts", "gone.txt"], "gone.txt"),
        (["-p", "a", "--steps", "many"], "steps is 'many'; expected a whole number"),
        (["-p", "a", "--last-steps", "9"], "--last-steps is 9 of 2 sampling_steps"),
        (["-p", "a", "--pipeline-dtype", "float16"], "float16"),
        (["-p", "a", "-s", "no-such-model"], "unknown model"),
        (["-p", "a", "-w", "1", "-w", "2"], "--weight is given 2 times"),
        (["-p", "a", "--combine", "advantages"], "give each --scorer a --weight"),
        (["-p", "a", "--data", "groups.jsonl"], "--data is for --method dpo, and the method is"),
        (["-p", "a", "--method", "dpo"], "--method dpo trains on ranked pictures; expected --data"),
        (["-p", "a", "-s", "laion", "-s", "laion"], "unknown model"),
    ],
)
def test_what_cannot_work_is_one_line(
    pipeline: Path, model: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "blank.txt").write_text("\n \n")
    chosen = [] if "-s" in arguments else ["-s", model]
    done = run("finetune", pipeline, "-o", "run", *QUICK, *chosen, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert told in last
    assert not (tmp_path / "run").exists()


def test_every_setting_is_an_option() -> None:
    listed = run("finetune", "--help", COLUMNS="200").stdout
    for field in fields(FinetuneConfig):
        assert f"--{field.name.replace('_', '-')} " in listed


def test_stable_diffusion_1_5_needs_two_options(model: Path, tmp_path: Path) -> None:
    """It comes with PNDM and a safety checker: each is refused until the option is there."""
    sd15().save_pretrained(tmp_path / "sd15")
    out = tmp_path / "run"
    call = ("finetune", tmp_path / "sd15", "-p", "a dog", "-s", model, "-o", out, *QUICK)
    refused = run(*call)
    assert refused.returncode == 2
    assert "--scheduler ddim" in refused.stderr
    refused = run(*call, "--scheduler", "ddim")
    assert refused.returncode == 2
    assert "--no-safety-checker" in refused.stderr
    assert not out.exists()
    done = run(*call, "--scheduler", "ddim", "--no-safety-checker")
    assert done.returncode == 0, done.stderr
    assert (out / "lora").is_dir()
