"""Trains vocabularies on text."""

import io
import re
from collections.abc import Iterable
from typing import Any

from keras_transformer import arguments, progress
from keras_transformer.text.tokenizer import MASK, Tokenizer, nfc

MODEL_TYPES = ("bpe", "unigram", "char", "word")
NORMALIZATIONS = ("identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")


def train_tokenizer(
    pairs: Iterable[Any],
    vocabulary_size: int = 10_000,
    model_type: str = "bpe",
    normalization: str = "identity",
    character_coverage: float | None = None,
    mask: bool = False,
) -> Tokenizer:
    """Trains one vocabulary on both sides of parallel text, as in section 5.1 (shared BPE).

    The same text and arguments give the same vocabulary on every machine.

    Args:
        pairs: An iterable of (source, target) pairs of strings, or of plain strings.
        vocabulary_size: V, including the 4 special ids (pad 0, unknown 1, start 2, end 3) and, for
            "bpe" and "unigram", 256 bytes. A "char" vocabulary may come out smaller.
        model_type: "bpe" or "unigram" (both lossless: rare characters are spelled in bytes), or
            "char" or "word" (what is not in the vocabulary becomes unknown).
        normalization: "identity" keeps the text as it is. "nmt_nfkc", "nfkc", "nmt_nfkc_cf" and
            "nfkc_cf" are SentencePiece's own lossy rules (½ becomes 1⁄2, several spaces one).
        character_coverage: The share of the text, from 0.98 to 1, whose characters get a piece of
            their own. By default 0.9995 for "bpe" and "unigram", otherwise 1.
        mask: Whether there is a fifth special id, `mask_id` 4, for masked language models. The
            characters "<mask>" in a text are ordinary text.

    Raises:
        ValueError: If there is no text, or if it cannot fill a vocabulary of that size or needs a
            larger one; the message names the limit (see `VocabularySizeError`).

    Example:

    ```python
    pairs = [("a dog runs", "ein hund rennt"), ("a dog sleeps", "ein hund schläft")]
    tokenizer = kt.text.train_tokenizer(pairs, vocabulary_size=290)
    ```
    """
    import sentencepiece

    for name, value, allowed in (
        ("model_type", model_type, MODEL_TYPES),
        ("normalization", normalization, NORMALIZATIONS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    if pairs is None or isinstance(pairs, str | bytes):
        raise ValueError(
            "pairs must be an iterable of pairs or of lines, got "
            f"{'None' if pairs is None else 'one string'}; read files with kt.data.read_parallel"
        )
    special = 5 if mask else 4
    vocabulary_size = arguments.whole_number(
        "vocabulary_size",
        vocabulary_size,
        least=special + 1,
        advice=f"{special} ids are special: pad, unknown, start, end{', mask' if mask else ''}.",
    )
    if character_coverage is not None:
        arguments.real_number("character_coverage", character_coverage, least=0.98)
        if character_coverage > 1:
            raise ValueError(f"character_coverage is at most 1, got {character_coverage}.")
    spells_in_bytes = model_type in ("bpe", "unigram")
    if character_coverage is None:
        # Korean has 11,172 syllables, of which a corpus repeats one or two thousand. Bytes keep the
        # rest without loss, and the embedding of a character seen once or twice would hardly be
        # trained. Without bytes, a character that has no piece would be lost.
        character_coverage = 0.9995 if spells_in_bytes else 1.0
    model = io.BytesIO()
    try:
        # SentencePiece reports no progress in this one long call, so show the lines and the time.
        with progress.work("training a vocabulary", unit="lines") as done:
            lines = _Lines(pairs, done)
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines.usable(),
                model_writer=model,
                model_type=model_type,
                vocab_size=vocabulary_size,
                character_coverage=character_coverage,
                normalization_rule_name=normalization,
                remove_extra_whitespaces=normalization != "identity",
                byte_fallback=spells_in_bytes,
                pad_id=0,
                unk_id=1,
                bos_id=2,
                eos_id=3,
                # These are never found in a text, unlike user-defined symbols.
                control_symbols=[MASK] if mask else [],
                # In bytes. The default silently drops lines over 4,192.
                max_sentence_length=2**30,
                # The sums of unigram, and so its pieces, depend on the number of threads.
                num_threads=1,
                minloglevel=2,
            )
    except RuntimeError as error:
        if lines.error is None:
            raise _training_error(str(error), vocabulary_size, model_type) from error
    if lines.error is not None:
        raise lines.error
    return Tokenizer(model.getvalue())


class _Lines:
    """The lines that SentencePiece asks for one by one.

    It would abort the process if an error passed through it. So the lines end at an error, which is
    kept in `error`.
    """

    def __init__(self, pairs, done):
        self._pairs, self._done, self.error = pairs, done, None

    def usable(self):
        count = 0
        try:
            for number, item in enumerate(self._pairs):
                for line in _lines_of(item, number):
                    if line.strip():
                        count += 1
                        self._done(1)
                        # SentencePiece drops lines that hold its marker for rare characters, "▅".
                        yield nfc(line).replace("▅", " ")
            if not count:
                raise ValueError("cannot train a vocabulary on no text: every line is empty")
        except Exception as error:
            self.error = error


class VocabularySizeError(ValueError):
    """The text cannot fill a vocabulary of that size, or needs a larger one.

    Args:
        message: What was asked for, and what is possible.
        possible: The nearest size that this text allows.
    """

    def __init__(self, message: str, possible: int) -> None:
        super().__init__(message)
        self.possible = possible


def _training_error(message, vocabulary_size, model_type):
    prefix = f"cannot train a {model_type} vocabulary of vocabulary_size={vocabulary_size}: "
    if most := re.search(r"size too high .*<= (\d+)", message):
        return VocabularySizeError(
            prefix + f"this text supports at most {most[1]}; lower it or give more text",
            int(most[1]),
        )
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return VocabularySizeError(
            f"{prefix}this text needs at least {least[1]} (special ids, bytes, its frequent "
            "characters); raise it or lower character_coverage",
            int(least[1]),
        )
    return ValueError(prefix + f"SentencePiece says {message}")


def _lines_of(item, number):
    """The strings of an item of `pairs`, which is the `number`-th."""
    try:
        return [
            arguments.string(line, f"Item {number} of pairs holds")
            for line in ([item] if isinstance(item, str | bytes) else item)
        ]
    except TypeError:
        raise ValueError(
            f"pairs is an iterable of pairs of strings or of strings; item {number} is {item!r}."
        ) from None
