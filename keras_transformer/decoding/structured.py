"""Translates documents sentence by sentence, and text with tags and placeholders."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from keras_transformer import arguments
from keras_transformer.decoding import alignment
from keras_transformer.decoding.sentences import Sentence, join_sentences, split_sentences
from keras_transformer.decoding.tags import take_out
from keras_transformer.decoding.translator import Hypothesis

NOTHING = Hypothesis("", [], 0.0)  # where the options allow no translation


class Structured(NamedTuple):
    """The translation of a text, and which words belong together.

    `links` are pairs (source word, target word) as `Translator.align` gives them, of both texts
    without their tags. They are None unless `align` or `tags` was asked for.
    """

    text: str
    links: alignment.Links | None


class Documents:
    """Texts as the sentences that are translated, and their translations as texts again.

    Args:
        texts: A list of strings.
        split, tags: See `translate_structured`.
    """

    def __init__(self, texts: Sequence[str], split: str | None = None, tags: bool = False) -> None:
        self._tagged = [take_out(text) for text in texts] if tags else []
        plain = [each.text for each in self._tagged] if tags else texts
        self._documents = [
            [Sentence(text, "")] if split is None else split_sentences(text, split)
            for text in plain
        ]
        self.sources = [sentence.text for document in self._documents for sentence in document]

    def grouped(self, values: Iterable[Any]) -> list[list[Any]]:
        """One value for each of `sources`, as a list for each text."""
        left = iter(values)
        return [list(itertools.islice(left, len(document))) for document in self._documents]

    def join(
        self, translated: Iterable[tuple[str, alignment.Links | None]]
    ) -> list[tuple[str, alignment.Links]]:
        """The translation and links of each of `sources`, as those of each text."""
        groups = self.grouped(translated)
        joined = list(map(join_sentences, self._documents, groups))
        if self._tagged:
            pairs = zip(self._tagged, joined, strict=True)
            joined = [(tagged.put_back(*each), each[1]) for tagged, each in pairs]
        return joined


def translate_structured(
    translator: Any,
    texts: Sequence[str],
    *,
    split: str | None = None,
    tags: bool = False,
    align: bool = False,
    layer: int = alignment.LAYER,
    heads: Sequence[int] | None = None,
    **options: Any,
) -> list[Structured]:
    """Translates texts of several sentences, or with tags and placeholders.

    All sentences of all texts are translated in the same batches.

    Args:
        translator: A `Translator`.
        texts: A list of strings.
        split: The code of the sources' language, such as "en", by whose rules each text is split
            into sentences. Their translations are joined with the white space of the source.
        tags: Whether tags of HTML or XML and placeholders such as `{name}` or `%s` are taken out,
            and put back beside the words of the translation that belong to those of the source.
        align: Whether to return which words belong together.
        layer, heads: The cross-attention to align by; see `Translator.align`.
        **options: Arguments of `Translator.translate`. `prefix` and `terminology` belong to single
            sentences, so they exclude `split`.

    Returns:
        For each text a `Structured`. Without its tags, its text is the translation of the source
        without tags.

    Raises:
        ValueError: If sentencex is not installed (the extra `split`), the translator has no
            attention to align by, or an option excludes `split`.

    Example:

    ```python
    texts = ["A man rides. He <b>waves</b> to {name}."]
    [found] = kt.decoding.translate_structured(translator, texts, split="en", tags=True)
    found.text  # "Ein Mann reitet. Er <b>winkt</b> {name}.", once trained
    ```
    """
    texts = arguments.strings(texts, "translate_structured")
    for name in ("prefix", "terminology"):
        if split is not None and options.get(name) is not None:
            raise ValueError(
                f"{name} belongs to a single sentence: leave it out, or split the texts yourself."
            )
    aligned = align or tags
    if aligned:
        alignment.check_heads(translator.models, layer, heads)
    documents = Documents(texts, split, tags)
    sources = documents.sources
    found = [some[0] if some else NOTHING for some in translator.n_best(sources, 1, **options)]
    links: list[Any] = [None] * len(sources)
    if aligned:
        pairs = [(source, best.ids) for source, best in zip(sources, found, strict=True)]
        batch_size = options.get("batch_size", 64)
        links = translator.align(pairs, batch_size, layer=layer, heads=heads)
    translated = zip((best.text for best in found), links, strict=True)
    return [
        Structured(text, words if aligned else None) for text, words in documents.join(translated)
    ]
