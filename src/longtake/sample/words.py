"""Detection of prompt words that a model was not trained on, with the nearest known thing for each."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from longtake.core.vocabulary import Vocabulary
from longtake.nets.text import TextEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class UnknownWord:
    """Word that the model was not trained on, with the nearest known thing."""

    word: str
    nearest: str

    def __str__(self) -> str:
        return f'"{self.word}" (nearest: "{self.nearest}")'


@dataclass(frozen=True, kw_only=True)
class Words:
    """Vocabulary of a model with its text encoder, to find unknown words of prompts.

    The nearest known thing is a word of similar spelling, or else the thing of most similar meaning.
    """

    vocabulary: Vocabulary
    encoder: TextEncoder

    def unknown(self, prompt: str) -> tuple[UnknownWord, ...]:
        """Unknown words of a prompt, in order."""
        return tuple(UnknownWord(word=word, nearest=self._nearest(word)) for word in self.vocabulary.unknown(prompt))

    def _nearest(self, word: str) -> str:
        spelt = self.vocabulary.spelt_like(word)
        if spelt is not None:
            return spelt
        likeness = self._meanings @ self._meaning(word)
        return self.vocabulary.things[int(likeness.argmax())]

    @cached_property
    def _meanings(self) -> Float[Tensor, "things e"]:
        return torch.stack([self._meaning(thing) for thing in self.vocabulary.things])

    def _meaning(self, text: str) -> Float[Tensor, " e"]:
        """Embedding of a text: the mean of its states, as for sentence encoders, normalised to length 1."""
        states = self.encoder(text)[0, 0]
        return normalize(states[states.abs().amax(1) > 0].mean(0), dim=0)
