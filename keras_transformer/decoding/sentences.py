"""A document to its sentences, and their translations to one text again."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from keras_transformer.decoding.alignment import Links

MISSING = (
    "Splitting into sentences needs a package that is not installed: pip install "
    "keras-transformer-kit[split]"
)
WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")


class Sentence(NamedTuple):
    """A sentence of a document, and the white space between it and the next one."""

    text: str
    space: str


def split_sentences(text: str, language: str) -> list[Sentence]:
    """Splits a text into its sentences, by the rules of a language.

    Args:
        text: A line, a paragraph or a document. White space at its ends is left out.
        language: The code of its language, such as "en". Of a language that it has no rules for,
            the library sentencex takes those of a related language, or of English.

    Returns:
        A list of `Sentence`s. It is empty if the text is blank.

    Raises:
        ValueError: If sentencex is not installed.

    Example:

    ```python
    split_sentences("Dr. Lee came.  He left.", "en")
    # [Sentence("Dr. Lee came.", "  "), Sentence("He left.", "")]
    ```
    """
    try:
        import sentencex
    except ImportError as error:
        raise ValueError(MISSING) from error
    found: list[Sentence] = []
    text, end = text.strip(), 0
    for part in sentencex.segment(language, WIDE_SPACE.sub(" ", text)):  # which it panics at
        part, end = text[end : end + len(part)], end + len(part)
        core = part.strip()
        before, _, after = part.partition(core) if core else (part, "", "")
        if found:
            found[-1] = found[-1]._replace(space=found[-1].space + before)
        if core:
            found.append(Sentence(core, after))
    if found:
        found[-1] = found[-1]._replace(space="")
    return found


def join_sentences(
    sentences: Sequence[Sentence], translations: Sequence[tuple[str, Links | None]]
) -> tuple[str, Links]:
    """Joins the translations of sentences, with the white space of the source.

    Where the source has none, there is a space, unless a wide sign such as "。" ends a sentence.

    Args:
        sentences: What `split_sentences` found.
        translations: For each its translation, and which words belong together, or None.

    Returns:
        The text, and its links, whose words are counted in the whole texts.
    """
    text = space = ""
    links: Links = []
    before = behind = 0  # the words of the whole texts before a sentence and its translation
    for sentence, (translation, some) in zip(sentences, translations, strict=True):
        if translation:
            if text:
                space = space or ("" if _is_wide(text[-1]) else " ")
                text, behind = text + space, behind - (not space)
            links += [(before + source, behind + target) for source, target in some or ()]
            text, space = text + translation, sentence.space
            behind += len(translation.split())
        before += len(sentence.text.split()) - (not sentence.space)
    return text, links


def _is_wide(character):
    return unicodedata.east_asian_width(character) in "WF"
