"""HPS v3: Qwen2-VL reads the picture and then the instruction with the prompt, a head scores.

Ma et al. 2025, arXiv:2508.03789; the arithmetic is that of the package hpsv3 1.0.0.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING, Any, Final, Self, final

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from stablepref.models.chat import CHAT_FILE, TOKENIZER_FILE, ChatText
from stablepref.models.lora import add_matrices, merged
from stablepref.models.qwen2_vl import RotaryTables, build_body, image_tokens, official_to_ours
from stablepref.preprocess.patches import PatchBatch, PatchPreprocess, join_patches
from stablepref.runtime.precision import kept_exact, widen
from stablepref.scorer import Scorer
from stablepref.scoring.towers import Tower, Towers, checkpoint_blocks
from stablepref.weights.errors import WeightsError
from stablepref.weights.files import assign_weights, read_weights
from stablepref.weights.literals import read_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stablepref.models.entry import Entry
    from stablepref.preprocess.patches import Patches

REWARD_TOKEN: Final = "<|Reward|>"
IMAGE_TOKEN: Final = "<|image_pad|>"
PROMPT_FIELD: Final = "{text_prompt}"
INSTRUCTION_FILE: Final = "instruction.json"
TEXTS: Final = ("INSTRUCTION", "prompt_with_special_token")
"""What the official file calls the instruction and its end."""
CONTEXT: Final = 4096
"""Tokens of instruction and prompt; the official code sets no bound."""
PADDING: Final = -1
UNIT: Final = "mean of a normal"


@final
class HPSv3Scorer(Scorer):
    """Mean and standard deviation of a picture's worth under a prompt; the score is the mean.

    The vision tower turns a picture into tokens, once for all prompts. The language model reads
    them between the beginning of a user's message and the instruction, in which the prompt stands,
    up to a token of its own at which the head reads the last hidden state. Positions count
    tokens, those of the picture too: unlike Qwen2-VL itself, this model never saw positions in
    three dimensions. Attention is causal, so that the text after that token has no effect, and
    is not read.

    Attributes:
        sizes: The architecture in numbers; see `stablepref.models.qwen2_vl.build_body`.
        instruction: The text around the prompt, which stands in it as {text_prompt}.
        rounded_rotary: Whether frequencies of rotary embeddings are rounded to bfloat16.
    """

    kind = "hps-v3"
    preprocess: PatchPreprocess

    def __init__(
        self,
        sizes: Mapping[str, Any],
        chat: ChatText,
        instruction: str,
        *,
        name: str = "hps-v3",
        preference_scale: float | None = 1.0,
        predicts_uncertainty: bool = True,
        rounded_rotary: bool = False,
        context: int = CONTEXT,
    ) -> None:
        """Build the model with random weights.

        Args:
            sizes: As the attribute of this name.
            chat: Tokenizer with the reward token, and chat template.
            instruction: As the attribute of this name.
            name: What `stablepref.load` calls the model.
            preference_scale: The factor that turns a difference of scores into log-odds.
            predicts_uncertainty: Whether its standard deviations were trained.
            rounded_rotary: See `round_rotary`.
            context: Most tokens of instruction and prompt.

        Raises:
            ImportError: transformers is not installed.
            ValueError: The instruction has no place for the prompt or no reward token, or the
                chat template shows no picture before the text.
        """
        super().__init__(
            name=name,
            unit=UNIT,
            preprocess=PatchPreprocess("hps-v3"),
            preference_scale=preference_scale,
        )
        if PROMPT_FIELD not in instruction or REWARD_TOKEN not in instruction:
            msg = f"the instruction lacks {PROMPT_FIELD} or {REWARD_TOKEN}"
            raise ValueError(msg)
        self.sizes = dict(sizes)
        self.chat, self.instruction, self.context = chat, instruction, context
        self.predicts_uncertainty = predicts_uncertainty
        self.rounded_rotary = rounded_rotary
        self.body = build_body(sizes, rows=len(chat))
        self.head = RewardHead(sizes["hidden_size"])
        self._reward_id = chat.id_of(REWARD_TOKEN)
        before, place, _ = self._text("").partition(IMAGE_TOKEN)
        if not place:
            msg = f"the chat template puts no {IMAGE_TOKEN} where the picture stands"
            raise ValueError(msg)
        self._before = chat.encode(before)
        self._tables = RotaryTables(self.body)
        self._tables.put(self.body, rounded=rounded_rotary)
        self._truncation_shown = False

    # The three stages.

    def collate(self, inputs: Sequence[Patches]) -> PatchBatch:
        """The patches of all pictures, one after another."""
        return join_patches(inputs)

    def encode_inputs(self, inputs: PatchBatch) -> Tensor:
        """Tokens of pictures, `(batch, most tokens, hidden_size + 1)`.

        Pictures have different numbers of tokens: the last column is 1 for a token and 0 after
        the last. All batches have the same shape, so that features may be kept side by side.
        """
        tokens = image_tokens(self.body, inputs)
        most = self.preprocess.details.most_tokens
        return torch.stack(
            [
                nn.functional.pad(torch.cat([one, one.new_ones(len(one), 1)], dim=-1),
                                  (0, 0, 0, most - len(one)))
                for one in tokens
            ]
        )  # fmt: skip

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `(batch, context)`, int64, of what follows the picture, up to the reward token.

        -1 after the last. A prompt that leaves no room is cut at its end, with one warning.
        """
        ids = torch.full((len(prompts), self.context), PADDING, dtype=torch.long)
        for row, prompt in zip(ids, prompts, strict=True):
            tokens = self._suffix(prompt)
            row[: len(tokens)] = torch.tensor(tokens)
        return ids.to(self.device)

    def match(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Means `(batch,)`, float32 or wider."""
        return self.predict(image_features, prompt_features)[:, 0]

    def predict(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """Means and logarithms of standard deviations, `(batch, 2)`, float32 or wider."""
        hidden = self._hidden(image_features, prompt_features)
        with torch.autocast(hidden.device.type, enabled=False):
            found: Tensor = self.head(widen(hidden))
        return found

    def cached_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Token ids, as `encode_prompts`: nothing that would be worth keeping."""
        return self.encode_prompts(prompts)

    def _hidden(self, image_features: Tensor, prompt_features: Tensor) -> Tensor:
        """The last hidden states, after the final norm, at the reward token `(batch, hidden)`."""
        language = self.body.language_model
        embed = language.embed_tokens
        before = embed(torch.tensor(self._before, device=prompt_features.device))
        counts = (image_features[..., -1] > 0).sum(-1).tolist()
        lengths = (prompt_features != PADDING).sum(-1).tolist()
        text = embed(prompt_features[:, : max(lengths)].clamp(min=0))
        # Padding on the right needs no mask: what comes later has no effect.
        rows = [
            torch.cat([before, image[:count, :-1].to(before.dtype), words[:length]])
            for image, count, words, length in zip(
                image_features, counts, text, lengths, strict=True
            )
        ]
        embedded = pad_sequence(rows, batch_first=True)
        batch, length = embedded.shape[:2]
        positions = torch.arange(length, device=embedded.device).expand(3, batch, length)
        states = language(
            inputs_embeds=embedded, position_ids=positions, use_cache=False
        ).last_hidden_state
        last = self._last(rows).to(states.device)
        found: Tensor = states[torch.arange(batch, device=states.device), last]
        return found

    @staticmethod
    def _last(rows: Sequence[Tensor]) -> Tensor:
        """Where the reward token of each row is."""
        return torch.tensor([len(row) - 1 for row in rows])

    # Text.

    def _text(self, prompt: str) -> str:
        parts = [
            {"type": "image"},
            {"type": "text", "text": self.instruction.format(text_prompt=prompt)},
        ]
        return self.chat.render([{"role": "user", "content": parts}])

    def _suffix(self, prompt: str) -> list[int]:
        """Token ids after the picture, up to and with the last reward token."""
        tokens = self.chat.encode(self._text(prompt).partition(IMAGE_TOKEN)[2])
        end = len(tokens) - tokens[::-1].index(self._reward_id)
        if end <= self.context:
            return tokens[:end]
        if not self._truncation_shown:
            self._truncation_shown = True
            warnings.warn(
                f"{self.name} reads {self.context} tokens of instruction and prompt and here are "
                f"{end}: the end of the prompt is cut (shown once for this model): "
                f"{prompt[:60]!r}...",
                stacklevel=2,
            )
        # A token is a character at least, mostly more: cut, and look again.
        return self._suffix(prompt[: min(len(prompt) - 1, len(prompt) * self.context // end)])

    # Training.

    def towers(self) -> Towers:
        """The vision tower, and the language model with the head."""
        visual, language = self.body.visual, self.body.language_model
        return Towers(
            Tower((visual.patch_embed,), list(visual.blocks), (visual.merger,)),
            Tower((language.embed_tokens,), list(language.layers), (language.norm, self.head)),
        )

    def add_lora(self, *, rank: int, seed: int) -> None:
        """Matrices in all blocks of the language model; the head is trained in full."""
        self.requires_grad_(False)
        for number, block in enumerate(self.body.language_model.layers):
            add_matrices(block, rank=rank, seed=seed + number)
        self.head.requires_grad_(True)

    def weights_to_save(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights with trained matrices added to those that they stand beside."""
        return merged(state)

    def checkpoint_activations(self) -> None:
        """In all blocks of both towers."""
        for tower in self.towers():
            checkpoint_blocks(tower)

    # Number types.

    def round_rotary(self, rounded: bool = True) -> None:
        """Round the frequencies of rotary embeddings to bfloat16, as the official code does.

        It casts the whole model after loading, these tables too, so that its numbers on a GPU
        come of rounded ones. By default they are exact here whatever the number type of the
        weights: nearer to the float32 scores, and not to the official package's bfloat16 ones.

        Args:
            rounded: Whether to round; False takes the exact ones again.
        """
        self.rounded_rotary = rounded
        self._tables.put(self.body, rounded=rounded)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the module, but keep rotary tables exact; the head keeps itself so."""
        super()._apply(fn, recurse)
        self._tables.put(self.body, rounded=self.rounded_rotary)
        return self

    # Files.

    def config(self) -> dict[str, Any]:
        """The JSON configuration that `from_config` reads."""
        return {
            "scorer": self.kind,
            "name": self.name,
            "preference_scale": self.preference_scale,
            "predicts_uncertainty": self.predicts_uncertainty,
            "rounded_rotary": self.rounded_rotary,
            "context": self.context,
            "sizes": self.sizes,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """The model that `config` describes, its weights still to be loaded."""
        chat = ChatText.read(folder / TOKENIZER_FILE, folder / CHAT_FILE, (REWARD_TOKEN,))
        instruction = json.loads((folder / INSTRUCTION_FILE).read_text(encoding="utf-8"))
        options = {key: value for key, value in config.items() if key not in ("scorer", "sizes")}
        return cls(config["sizes"], chat, instruction["instruction"], **options)

    def save_files(self, folder: Path) -> None:
        """Write tokenizer, chat template and instruction."""
        self.chat.save(folder)
        text = json.dumps({"instruction": self.instruction}, ensure_ascii=False)
        (folder / INSTRUCTION_FILE).write_text(text, encoding="utf-8")


@final
class RewardHead(nn.Sequential):
    """The head on a hidden state, which stays in float32 when the model is cast.

    Args:
        width: Of hidden states.
    """

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, 1024),
            nn.ReLU(),
            nn.Dropout(0.05),
            nn.Linear(1024, 16),
            nn.ReLU(),
            nn.Linear(16, 2),
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        with kept_exact(self.parameters):
            super()._apply(fn, recurse)
        return self


def build_hps_v3(entry: Entry, files: Sequence[Path]) -> HPSv3Scorer:
    """The scorer of the official weights, instruction, tokenizer and chat template.

    Raises:
        ImportError: transformers is not installed.
        WeightsError: A file is not the official one, or does not fit.
    """
    weights, texts, tokenizer, template = files
    # The checksum is of both together.
    instruction = "".join(read_literal(texts, name, sha256=None) for name in TEXTS)
    found = hashlib.sha256(instruction.encode()).hexdigest()
    expected = entry.sizes["instruction_sha256"]
    if found != expected:
        msg = (
            f"the instruction in {texts} has SHA-256 {found}, expected {expected}: it is not the "
            "one that the model was trained with; take dataset/data_collator_qwen.py of the "
            "package hpsv3 1.0.0"
        )
        raise WeightsError(msg)
    chat = ChatText.read(tokenizer, template, (REWARD_TOKEN,))
    parts = official_to_ours(read_weights(weights), head="rm_head.")
    sizes = {key: value for key, value in entry.sizes.items() if key != "instruction_sha256"}
    with init_empty_weights(include_buffers=False):
        scorer = HPSv3Scorer(
            sizes,
            chat,
            instruction,
            name=entry.name,
            preference_scale=entry.preference_scale,
        )
    # Each in its own number type: the head's is float32, the body's bfloat16.
    assign_weights(scorer.body, parts["body"], source=weights)
    assign_weights(scorer.head, parts["head"], source=f"the head in {weights}")
    scorer.head.float()
    return scorer.eval()
