"""Record the scores of HPS v3's official code with the files of `hps_v3`.

    python -m benchmarks.parity.official_hps_v3 tiny
    python -m benchmarks.parity.official_hps_v3 two

from the root of the repository, in an environment that docs/parity.md describes: it has hpsv3
1.0.0 and no stablepref.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from . import hps_v3
from .weights import state_digest

PACKAGES = ("hpsv3", "transformers", "tokenizers", "torch", "torchvision", "pillow", "numpy")
RECORDS = Path("tests/parity")


def base_folder(sizes: hps_v3.Sizes, folder: Path) -> None:
    """The base model in the layout of its hub repository, for the official code to begin with."""
    transformers: Any = importlib.import_module("transformers")
    ids = hps_v3.token_id
    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
              "num_key_value_heads")  # fmt: skip
    config = transformers.Qwen2VLConfig(
        vocab_size=ids(hps_v3.REWARD) + 32,  # as the published base, more than the tokenizer has
        max_position_embeddings=4096,
        rope_theta=1e6,
        rope_scaling={"type": "mrope", "mrope_section": sizes["mrope_section"]},
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|im_end|>"),
        vision_config={"hidden_size": sizes["hidden_size"], **sizes["vision"]},
        **{name: sizes[name] for name in shared},
    )
    transformers.Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(hps_v3.tokenizer_file(), encoding="utf-8")
    tokenizer = transformers.Qwen2TokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(hps_v3.SPECIAL[1:]),
    )
    images = transformers.Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056)
    transformers.Qwen2VLProcessor(images, tokenizer, chat_template=hps_v3.CHAT).save_pretrained(
        folder
    )


def inferencer(sizes: hps_v3.Sizes) -> Any:  # noqa: ANN401 - the official class
    """The official scorer on the CPU in float32, its texts replaced by made-up ones."""
    inference: Any = importlib.import_module("hpsv3.inference")
    parser: Any = importlib.import_module("hpsv3.utils.parser")
    train: Any = importlib.import_module("hpsv3.train")
    inference.INSTRUCTION = hps_v3.INSTRUCTION
    inference.prompt_with_special_token = hps_v3.TAIL
    with TemporaryDirectory() as name:
        base_folder(sizes, Path(name) / "base")
        model, processor, _ = train.create_model_and_processor(
            parser.ModelConfig(
                model_name_or_path=str(Path(name) / "base"),
                rm_head_type="ranknet",
                output_dim=2,
                use_special_tokens=True,
                reward_token="special",
                torch_dtype="float32",
            ),
            parser.PEFTLoraConfig(),
            parser.TrainingConfig(
                output_dir=f"{name}/out", bf16=False, use_cpu=True, disable_flash_attn2=True
            ),
        )
    model.load_state_dict(hps_v3.official_state(sizes), strict=True)
    # What autocast("cuda", float32) around the head does on a GPU.
    model.rm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    official = object.__new__(inference.HPSv3RewardInferencer)
    official.model, official.processor = model.eval(), processor
    official.device, official.use_special_tokens = "cpu", True
    return official


def patches_of(official: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - the official class
    """What the official preprocessing makes of each shape: a checksum, or a refusal."""
    found = []
    for shape in hps_v3.SHAPES:
        picture = hps_v3.picture(*shape)
        try:
            batch = official.prepare_batch([picture], [""])
        except ValueError as error:
            found.append({"shape": shape, "error": str(error)})
            continue
        values = batch["pixel_values"]
        found.append(
            {
                "shape": shape,
                "grid": batch["image_grid_thw"][0].tolist(),
                "sha256": hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest(),
            }
        )
    return found


@torch.no_grad()
def record(case: str) -> dict[str, Any]:
    """Scores, tokens and patches of the official code."""
    sizes = hps_v3.CASES[case]
    official = inferencer(sizes)
    pictures = [hps_v3.picture(*shape) for shape in hps_v3.PICTURES]
    prompts = list(hps_v3.PROMPTS)
    count = len(pictures)
    made: dict[str, Any] = {
        "model": "hps-v3",
        "case": case,
        "official": "`hpsv3.HPSv3RewardInferencer.reward` on the CPU, its instruction replaced.",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "weights_sha256": state_digest(hps_v3.official_state(sizes)),
        # [picture][prompt] -> mu, s
        "scores": torch.stack(
            [official.reward(pictures, [prompt] * count) for prompt in prompts], dim=1
        ).tolist(),
        "single": [
            official.reward([p], [t])[0].tolist() for p, t in zip(pictures, prompts, strict=True)
        ],
    }
    if case == "tiny":
        made["patches"] = patches_of(official)
        made["tokens"] = [
            official.prepare_batch(pictures[:1], [prompt])["input_ids"][0].tolist()
            for prompt in prompts
        ]
        tables = [m for m in official.model.modules() if hasattr(m, "inv_freq")]
        exact = [m.inv_freq for m in tables]
        for module in tables:
            module.inv_freq = module.inv_freq.to(torch.bfloat16)
        made["rounded_tables"] = official.reward(pictures, prompts).tolist()
        for module, table in zip(tables, exact, strict=True):
            module.inv_freq = table
        head = official.model.rm_head
        official.model.to(torch.bfloat16)
        head.load_state_dict(
            {
                k.removeprefix("rm_head."): v
                for k, v in hps_v3.official_state(sizes).items()
                if k.startswith("rm_head.")
            },
            assign=True,
        )
        made["bfloat16"] = official.reward(pictures, prompts).tolist()
        made["bfloat16_single"] = [
            official.reward([p], [t])[0].tolist() for p, t in zip(pictures, prompts, strict=True)
        ]
    return made


if __name__ == "__main__":
    made = record(sys.argv[1])
    text = json.dumps(made, ensure_ascii=False, indent=None, separators=(",", ":"))
    (RECORDS / f"hps-v3-{sys.argv[1]}.json").write_text(text + "\n", encoding="utf-8")
    print(torch.tensor(made["scores"]))
