"""The byte-level BPE vocabulary, in which a word has the same pieces with and without a space before it.

An argument is copied from after a space in the request ("in Kyoto") to after a quotation mark in the call
("Kyoto"). Ordinary byte-level BPE cuts the two differently, so a rare word could not be copied piece by piece.
Here merges are learned on words without their space; only then are merges added that join a space to a first piece.
The result is an ordinary `gpt2` tokenizer, which llama.cpp reads as such.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.conversation import CALL_CLOSE, CALL_OPEN, END, START, render_answer, render_opening
from training.generator import Generator, Recipe

PAD = "<|pad|>"
SPECIAL = (PAD, START, END, CALL_OPEN, CALL_CLOSE)
SPACE = "Ġ"  # how byte-level BPE writes a space
PIECES = 4096  # vocabulary before the merges that join a space
SPACED = 2048  # merges that join a space
MAX_PIECE = 14


def corpus(seed: int, sittings: int) -> Iterator[str]:
    """Text of sittings without the special tokens, and every word list once more so that rare words get pieces."""
    generator = Generator(seed)
    cut = re.compile("|".join(re.escape(token) for token in SPECIAL))
    for _ in range(sittings):
        sitting = generator.sitting(Recipe())
        text = render_opening(sitting.system, sitting.tools)
        text += "".join(decision.before + render_answer(decision.answer) for decision in sitting.decisions)
        yield from (part for part in cut.split(text) if part)
    for word in generator.words:
        yield f"{word} {word.capitalize()} {word}"
    for values in generator.data.slots.values():
        yield from values


def build(texts: Iterable[str]) -> Tokenizer:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words: Counter[str] = Counter()
    for text in texts:
        words.update(piece for piece, _ in split.pre_tokenize_str(text))
    bare: Counter[str] = Counter()
    for word, count in words.items():
        bare[word.removeprefix(SPACE) or SPACE] += count

    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=3,
        max_token_length=MAX_PIECE,
        show_progress=False,
    )
    learner.train_from_iterator((word for word, count in sorted(bare.items()) for _ in range(min(count, 400))), trainer)
    model = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merges = [tuple(merge) for merge in model["merges"]]

    first: Counter[str] = Counter()
    for word, count in sorted(words.items()):
        if word.startswith(SPACE) and len(word) > 1:
            first[learner.encode(word[1:]).tokens[0]] += count
    for piece, _ in sorted(first.items(), key=lambda item: (-item[1], item[0]))[:SPACED]:
        joined = SPACE + piece
        if joined not in vocabulary:
            vocabulary[joined] = len(vocabulary)
            merges.append((SPACE, piece))

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def canonical(token: str) -> str:
    """What a token means however it is written: without space before it and in lower case."""
    return token.removeprefix(SPACE).lower() or token


def listed(tokenizer: Tokenizer) -> list[str]:
    """All tokens in the order of their numbers."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def save(tokenizer: Tokenizer, path: Path) -> None:
    tokenizer.save(str(path), pretty=False)


def read(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))
