"""Text to text: tokenise, encode, search, detokenise."""

import concurrent.futures
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_transformer import arguments, progress
from keras_transformer.decoding import alignment, scoring, shapes
from keras_transformer.decoding.id_translator import Draw, IdTranslator, Item, Wanted, bank
from keras_transformer.decoding.next_token import SearchOptions
from keras_transformer.ops.capabilities import calls_at_once
from keras_transformer.text import Seen

BATCH_SIZE = "The default is 64; fewer sentences at once need less memory."


class Hypothesis(NamedTuple):
    """One translation: its text, its ids without the end, and its score (see `length_penalty`)."""

    text: str
    ids: list[int]
    score: float


class Translator(IdTranslator):
    """Translates text with a trained `Transformer`, or with several as one ensemble.

    The search is compiled once per shape and kept. It reads the models' weights anew at each call,
    so it follows later training or averaging. An ensemble chooses the next token by the mean of its
    members' probabilities.

    Args:
        model: A `Transformer`, or a list of them with one vocabulary; or other models with its
            `encode`, `start_cache`, `decode`, `source_embedding` and `target_embedding`. Any
            Keras model from `{"source_ids": [B, S], "target_ids": [B, T]}`, or from two such
            inputs in that order, to logits [B, T, V] translates too: without a cache, slowly.
        tokenizer: The vocabulary of the source, and of the target if they share one: a
            `Tokenizer`, or an object with `vocabulary_size`, `encode(texts)` (lists of ids),
            `decode(ids)` (a string), `pad_id` (0), `start_id` and `end_id`.
        target_tokenizer: The vocabulary of the target, if it is another.
        seen: What training saw of the source language, a `kt.text.Seen`. If given, sources are
            read as training read its text, and a line on stderr says what training never saw.

    Attributes:
        models: The list of the models.
        weights: The names of the weights that `kt.load_translator` chose, otherwise None.

    Raises:
        ValueError: If a vocabulary is larger than a model's, the models have different
            vocabularies, a model has other inputs or outputs, a tokenizer lacks these methods, or
            the target's start or end is padding.

    Example:

    ```python
    translator = Translator(model, tokenizer)
    translator.translate(["A man rides a horse ."], beam_size=4)  # a list of one string
    ```
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        target_tokenizer: Any = None,
        *,
        seen: Seen | None = None,
    ) -> None:
        super().__init__(model, tokenizer, target_tokenizer)
        self.seen = seen
        self.weights: str | int | list[str | int] | None = None
        self._said: set[str] = set()  # kinds of remarks on sources

    def translate(
        self,
        texts: Sequence[str],
        beam_size: int = 4,
        length_penalty: float | str = 0.6,
        batch_size: int = 64,
        *,
        tokens_per_batch: int | None = None,
        prefix: Any = None,
        terminology: Any = None,
        **options: Any,
    ) -> list[str]:
        """Returns the best translation of each text, in order. A blank text gives an empty one.

        Args:
            texts: A list of strings.
            beam_size: Hypotheses that are kept at each step. 1 is greedy search.
            length_penalty: Alpha of the GNMT penalty, 0.6 in the paper, or `"average"` for the
                log-probability per token.
            batch_size: The greatest number of sentences that are translated at once.
            tokens_per_batch: The greatest number of source tokens that are translated at once,
                padding counted, so that long sentences come in smaller batches. Each takes the
                memory of `beam_size` hypotheses. A longer sentence is translated alone.
            prefix: How the translations begin: a string for all, or a list with one for each text,
                where None is none. Lists of ids of the target's vocabulary are prefixes too.
            terminology: For each text a list of phrases that its translation must hold, as the
                vocabulary spells them, or None. The beam is wider by one hypothesis per token of
                the phrases, and slower: see docs/howto/decoding.md.
            **options: What the translations must and may hold, such as `min_length`,
                `no_repeat_ngram` or `sampling`; see `kt.decoding.SearchOptions`.
        """
        n_best = self.n_best(
            texts,
            1,
            beam_size,
            length_penalty,
            batch_size,
            tokens_per_batch=tokens_per_batch,
            prefix=prefix,
            terminology=terminology,
            **options,
        )
        return [hypotheses[0].text if hypotheses else "" for hypotheses in n_best]

    def n_best(
        self,
        texts: Sequence[str],
        n: int,
        beam_size: int = 4,
        length_penalty: float | str = 0.6,
        batch_size: int = 64,
        *,
        tokens_per_batch: int | None = None,
        prefix: Any = None,
        terminology: Any = None,
        **options: Any,
    ) -> list[list[Hypothesis]]:
        """Like `translate`, with up to `n` hypotheses of each text, best first.

        With `sampling` each text is translated `n` times, and its different translations are
        returned. There may be none if `adjust` allows none.

        Raises:
            ValueError: If `n` is above `beam_size`, another argument is out of range, `texts` holds
                anything but strings, or the model's probabilities are not finite.
        """
        texts = arguments.strings(texts, "translate")
        batch_size = arguments.whole_number("batch_size", batch_size, advice=BATCH_SIZE)
        if tokens_per_batch is not None:
            advice = "None sets no limit."
            arguments.whole_number("tokens_per_batch", tokens_per_batch, advice=advice)
        items, wanted = self.asked(
            texts,
            n,
            beam_size,
            length_penalty,
            prefix=prefix,
            terminology=terminology,
            **options,
        )
        limits, draws = (batch_size, tokens_per_batch), n if wanted.draw else 1
        results = self._translated(items, wanted, limits, lambda i: texts[i // draws])
        if wanted.draw is None:
            return results
        return [_different(results[i : i + n]) for i in range(0, len(results), n)]

    def asked(
        self,
        texts: Sequence[str],
        n: int,
        beam_size: int = 4,
        length_penalty: float | str = 0.6,
        *,
        prefix: Any = None,
        terminology: Any = None,
        **options: Any,
    ) -> tuple[list[Item], Wanted]:
        """Checks the arguments of `n_best`, and returns what it searches for, without searching.

        Raises:
            ValueError: If `n_best` would refuse these arguments.
        """
        texts = arguments.strings(texts, "translate")
        advice = "1 is greedy search; the paper has 4."
        beam_size = arguments.whole_number("beam_size", beam_size, advice=advice)
        advice = f"A beam of {beam_size} has between 1 and {beam_size} results"
        n = arguments.whole_number("n", n, advice=f"{advice}.")
        length_penalty = arguments.length_penalty(length_penalty)
        chosen = SearchOptions(**options)
        sampling = chosen.sampling
        if n > beam_size and sampling is None:
            raise ValueError(f"{advice}, asked for n={n}. Raise beam_size, or ask for fewer.")
        prefixes = self._prefixes(prefix, len(texts))
        phrases = self._phrases(terminology, len(texts))
        if sampling is not None and any(phrases):
            raise ValueError("terminology needs a beam: leave sampling out.")
        sources = self.encode_sources(texts)
        self._refuse_too_long(texts, sources)
        adjust = chosen.adjustments(self.target_tokenizer)
        wanted = Wanted(n, beam_size, length_penalty, chosen.max_length, adjust)
        items = list(map(Item, sources, prefixes, phrases))
        if sampling is not None:
            draw = Draw(sampling.temperature, sampling.top_k, sampling.top_p)
            if sampling.temperature == 0:  # nothing can be divided by it
                draw = Draw(1.0, 1, None)
            wanted = wanted._replace(n=1, beam_size=1, draw=draw)
            items = [
                item._replace(random=(sampling.seed, number, turn))
                for number, item in enumerate(items, start=sampling.first)
                for turn in range(n)
            ]
        self.check(items, wanted)
        return items, wanted

    def _prefixes(self, prefix, count):
        """The ids with which each target begins."""
        if prefix is None or isinstance(prefix, str):
            prefix = [prefix] * count
        prefixes = list(prefix)
        if len(prefixes) != count:
            raise ValueError(
                f"prefix is one string, or a list with one for each text; got {len(prefixes)} for "
                f"{count} texts."
            )
        encode = self.target_tokenizer.encode
        return [
            encode([each])[0] if isinstance(each, str) else list(each or []) for each in prefixes
        ]

    def _phrases(self, terminology, count):
        """The ids of the phrases that each target must hold."""
        terminology = [None] * count if terminology is None else list(terminology)
        if len(terminology) != count or any(isinstance(each, str) for each in terminology):
            raise ValueError(
                "terminology has a list of phrases, or None, for each text; got "
                f"{len(terminology)} for {count} texts, such as {terminology[:1]}."
            )
        encode = self.target_tokenizer.encode
        texts = (arguments.strings(each or [], "terminology") for each in terminology)
        return [[ids for ids in encode(each) if ids] for each in texts]

    def _translated(self, items, wanted, limits, text_of):
        """Returns the hypotheses of each item. `text_of` gives the text of an item's number."""
        results: list[Any] = [
            None if item.source else [Hypothesis("", [], 0.0)] * wanted.n for item in items
        ]

        def search(chosen, whole):
            found = self._search([items[i] for i in chosen], wanted, whole)
            for i, hypotheses in zip(chosen, found, strict=True):
                if hypotheses is not None:
                    decode = self.target_tokenizer.decode
                    results[i] = [Hypothesis(decode(ids), ids, score) for ids, score in hypotheses]
                    done(len(items[i].source))
            return [i for i in chosen if results[i] is None]

        left = [i for i, item in enumerate(items) if item.source]
        self._asked.update(self._width(len(items[i].source) + 1) for i in left)
        total = sum(len(item.source) for item in items)
        # First with room for what most sentences need: room is filled with zeros at each call, and
        # accelerators read all of it at each step.
        with progress.work("translating", total, "source tokens") as done:
            for whole in (False, True):
                # Longest first: the largest shape comes at once, and a batch has similar lengths.
                left.sort(key=lambda i: -len(items[i].source))
                # Terminology takes another search, which others do not pay for.
                batches = []
                for kind in _split(left, lambda i: bank(items[i])):
                    lengths = [len(items[i].source) + 1 for i in kind]
                    widths = [self._width(length, shapes.COARSE_LENGTHS) for length in lengths]
                    batches += [kind[some] for some in shapes.batches(widths, *limits)]
                found = _side_by_side(search, batches, whole)
                left = [i for unfinished in found for i in unfinished]
        if left:
            raise ValueError(
                f"Found no end of a translation of {text_of(left[0])[:80]!r}: the model's "
                "probabilities are not finite. Are its weights those of a run that did not diverge?"
            )
        return results

    @property
    def compiled_shapes(self) -> int:
        """How many shapes of searches and scorings were compiled so far.

        Lengths and numbers of sentences are rounded up to few values, so it stays small.
        """
        return sum(len(each.shapes) for each in self._searches.values())

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts to lists of ids, without the end. A blank text has no ids.

        If `seen` was given, spaces and invisible characters that training never saw become a space
        or are left out. What else training never saw is said on stderr, each kind once.
        """
        seen = self.seen
        plain = texts if seen is None else [seen.plain(text) for text in texts]
        sources = self.tokenizer.encode([text if text.strip() else "" for text in plain])
        for text, ids in zip(texts, sources, strict=True):
            if seen is None or len(self._said) == len(seen.REMARKS):
                break
            for kind, remark in seen.remarks(text, ids, self.tokenizer, self._said).items():
                progress.say(f"warning: {remark} Said once.")
                self._said.add(kind)
        return sources

    def remarks(self, text: str) -> list[str]:
        """Returns sentences on what training never saw of a source text; none without `seen`."""
        if self.seen is None:
            return []
        [ids] = self.tokenizer.encode([self.seen.plain(text)])
        return list(self.seen.remarks(text, ids, self.tokenizer).values())

    def _refuse_too_long(self, texts, sources):
        """Raises an error that names the first text with more tokens than learned positions."""
        learned = self.learned_positions("source_embedding")
        for number, (text, ids) in enumerate(zip(texts, sources, strict=True), start=1):
            if learned is not None and len(ids) + 1 > learned:
                raise ValueError(
                    f"Text {number} of {len(texts)} has {len(ids) + 1} tokens, and the model has "
                    f"learned {learned} positions: shorten it, or split it into sentences. It "
                    f"begins {text[:80]!r}."
                )

    def score(self, pairs: Iterable[Any], batch_size: int = 64) -> list[tuple[float, int]]:
        """How probable given translations are: `log P(target | source)`, teacher-forced.

        The sum of the log-probabilities of the target's tokens and of its end, in nats, without a
        length penalty: to filter parallel text, or to rank translations from elsewhere. An empty or
        blank side counts as its end token only.

        Args:
            pairs: A list of (source, target): strings, or for the target a list of ids without
                the end, as `Hypothesis.ids`.
            batch_size: The greatest number of pairs that are scored at once. There are fewer if
                they are longer than 64 tokens.

        Returns:
            A list of (log-probability, number of target tokens with the end).

        Raises:
            ValueError: If `pairs` holds anything but pairs, or a sentence is longer than learned
                positions.

        Example:

        ```python
        [(log_probability, tokens)] = translator.score([("A man rides .", "Ein Mann reitet .")])
        math.exp(-log_probability / tokens)  # the perplexity of this translation
        ```
        """
        found = self.token_log_probabilities(pairs, batch_size)
        return [(math.fsum(each), len(each)) for each in found]

    def token_log_probabilities(
        self, pairs: Iterable[Any], batch_size: int = 64
    ) -> list[list[float]]:
        """Like `score`, with the log-probability of each target token and, last, of the end."""
        batch_size = arguments.whole_number("batch_size", batch_size, advice=BATCH_SIZE)
        ids = scoring.encode_pairs(pairs, self.encode_sources, self.target_tokenizer)
        score = self._compiled("score", self.score_ids)
        found: list[Any] = [None] * len(ids)
        total = sum(len(target) + 1 for _, target in ids)
        with progress.work("scoring", total, "target tokens") as done:
            for chosen in scoring.in_batches(ids, batch_size):
                batch = [ids[i] for i in chosen]
                scored = ops.convert_to_numpy(score(*self.arrays_of(batch)))
                for i, row in zip(chosen, scored[: len(chosen)], strict=True):
                    found[i] = row[: len(ids[i][1]) + 1].tolist()
                    done(len(found[i]))
        return found

    def align(
        self,
        pairs: Iterable[Any],
        batch_size: int = 64,
        *,
        layer: int = alignment.LAYER,
        heads: Sequence[int] | None = None,
    ) -> list[alignment.Links]:
        """Returns which words of a source and of its translation belong together.

        Each word of the translation is linked to the source word that it attends to most, in a
        teacher-forced pass. Words are those between spaces. The links are a guess of the model's:
        docs/lab-notebook.md says how often it is right.

        Args:
            pairs, batch_size: As in `score`.
            layer: The decoder's layer whose cross-attention is read, negative from the end.
            heads: The heads to read, from 0. None takes the mean of all.

        Returns:
            For each pair a list of (source word, target word), counted from 0. It is empty if a
            side is blank.

        Raises:
            ValueError: As in `score`, or if the model has no such layer or head.

        Example:

        ```python
        translator.align([("나는 집에 간다", "I go home")])  # [[(0, 0), (1, 2), (2, 1)]], trained
        ```
        """
        batch_size = arguments.whole_number("batch_size", batch_size, advice=BATCH_SIZE)
        pairs, plain = list(pairs), self.seen.plain if self.seen else str
        ids = scoring.encode_pairs(pairs, self.encode_sources, self.target_tokenizer)
        found = alignment.align_ids(self, ids, layer, heads, batch_size)
        return [
            alignment.between_given(links, source, target, plain)
            for links, (source, target) in zip(found, pairs, strict=True)
        ]


def _split(numbers, kind_of):
    """The numbers of each kind."""
    kinds = sorted({kind_of(i) for i in numbers})
    return [[i for i in numbers if kind_of(i) == kind] for kind in kinds]


def _different(draws):
    """The different hypotheses of several draws of one text, most probable first."""
    found = {tuple(each.ids): each for hypotheses in draws for each in hypotheses}
    return sorted(found.values(), key=lambda each: -each.score)


def _side_by_side(function, batches, *arguments):
    """`function(batch, *arguments)` of each batch, in order, as many at once as repays."""
    threads = min(len(batches), calls_at_once())
    if threads < 2:
        return [function(batch, *arguments) for batch in batches]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda batch: function(batch, *arguments), batches))
