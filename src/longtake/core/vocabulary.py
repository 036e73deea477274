"""Vocabulary of a model's training captions, and detection of prompt words outside it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
SPELT_ALIKE = 0.85  # smallest difflib ratio at which an unknown word counts as a misspelling of a known one
# Function words and other words that name nothing visible; they count as known to every model.
PLAIN = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "some",
        "one",
        "two",
        "it",
        "its",
        "he",
        "she",
        "they",
        "them",
        "his",
        "her",
        "their",
        "there",
        "here",
        "who",
        "which",
        "what",
        "is",
        "are",
        "was",
        "were",
        "be",
        "being",
        "been",
        "has",
        "have",
        "had",
        "do",
        "does",
        "and",
        "or",
        "but",
        "as",
        "if",
        "so",
        "then",
        "than",
        "while",
        "when",
        "until",
        "after",
        "before",
        "during",
        "with",
        "without",
        "within",
        "of",
        "in",
        "on",
        "at",
        "by",
        "to",
        "from",
        "for",
        "into",
        "onto",
        "through",
        "across",
        "along",
        "around",
        "over",
        "under",
        "above",
        "below",
        "beside",
        "between",
        "behind",
        "near",
        "toward",
        "towards",
        "past",
        "against",
        "off",
        "up",
        "down",
        "out",
        "away",
        "back",
        "again",
        "very",
        "much",
        "more",
        "too",
        "just",
        "only",
        "also",
        "now",
        "later",
        "slowly",
        "quickly",
        "suddenly",
        "gently",
        "begins",
        "begin",
        "starts",
        "start",
        "stops",
        "stop",
        "continues",
        "comes",
        "goes",
        "moves",
        "moving",
        "gets",
        "becomes",
        "turns",
        "make",
        "makes",
        "see",
        "seen",
        "show",
        "shows",
        "video",
        "picture",
        "scene",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Words of a model's training captions.

    `groups` maps a kind of thing ("subjects") to its things, and each thing to the phrases that name it.
    """

    groups: Mapping[str, Mapping[str, tuple[str, ...]]]
    other: tuple[str, ...] = ()  # further words of the training captions

    @cached_property
    def words(self) -> frozenset[str]:
        """All known words, in lower case."""
        phrases = (phrase for things in self.groups.values() for ways in things.values() for phrase in ways)
        return frozenset({word for phrase in phrases for word in words_of(phrase)} | set(self.other) | PLAIN)

    @cached_property
    def things(self) -> tuple[str, ...]:
        """First, plainest phrase of each thing."""
        return tuple(dict.fromkeys(ways[0] for things in self.groups.values() for ways in things.values()))

    def unknown(self, prompt: str) -> tuple[str, ...]:
        """Words of a prompt of which no form is known, in order, without repeats."""
        found = (word for word in words_of(prompt) if not any(form in self.words for form in forms(word)))
        return tuple(dict.fromkeys(found))

    def spelt_like(self, word: str) -> str | None:
        """Known word of which an unknown one is probably a misspelling; None if there is none."""
        close = get_close_matches(word, sorted(self.words - PLAIN), 1, SPELT_ALIKE)
        return close[0] if close else None


def words_of(text: str) -> tuple[str, ...]:
    """Words of a text, in lower case."""
    return tuple(word.lower() for word in WORD.findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))


def forms(word: str) -> Iterable[str]:
    """Candidate inflections of a word, itself included: "walk" and "walking" for "walks", "tiger" for "tigers"."""
    stems = {word}
    for ending in ("'s", "s", "es", "ed", "d", "ing", "ly", "y"):
        stem = word.removesuffix(ending)
        if len(stem) > 2:
            stems |= {stem, stem + "e"}
            if len(stem) > 3 and stem[-1] == stem[-2]:
                stems.add(stem[:-1])  # doubled consonants, as in "hopped" and "running"
    if word.endswith("ies"):
        stems.add(word[:-3] + "y")
    return {form for stem in stems for form in (stem, stem + "s", stem + "es", stem + "ing")}
