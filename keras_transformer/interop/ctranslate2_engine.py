"""Translating with CTranslate2 through the interface of `Translator`."""

import functools
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_transformer import arguments, progress
from keras_transformer.decoding.id_translator import IdTranslator, Item, Wanted, penalty_of
from keras_transformer.decoding.next_token import (
    MinLength,
    NoRepeat,
    RepetitionPenalty,
    Siblings,
    Suppress,
)
from keras_transformer.decoding.scoring import encode_pairs
from keras_transformer.decoding.translator import Hypothesis, Translator
from keras_transformer.interop.ctranslate2 import POSITIONS
from keras_transformer.text import Seen
from keras_transformer.text.workers import cores

# How much longer than until `beam_size` hypotheses have finished a beam is searched. Without it
# CTranslate2 ends earlier than this package.
PATIENCE = 1.5
# What it has not, or differently.
OTHERS = {RepetitionPenalty: "repetition_penalty as here", Siblings: "diversity"}
# From so many bytes of weights on, up to four cores translate a single sentence together. With
# smaller models it takes longer to wake them.
TOGETHER = 100 * 2**20


class CTranslate2Translator(Translator):
    """A `Translator` whose searches run in CTranslate2, on a folder that `to_ctranslate2` wrote.

    CTranslate2 searches by its own rules: see `interop/ctranslate2.py`. Its hypotheses are ranked
    by our length penalty. A prefix does not count in the score, nor does an end that `max_length`
    cuts off, and probabilities are shared out anew among the tokens that options leave.

    Args:
        folder: The folder.
        tokenizer, target_tokenizer, seen: See `Translator`.
        learned_positions: How many positions the model has learned, or None.
        other: Returns the same translator by our own engine, always the same one. It is asked for
            what CTranslate2 lacks, which is otherwise refused.
        **options: More arguments of `ctranslate2.Translator`, such as `device="cuda"`. On a
            processor each core translates batches of its own, unless `inter_threads` and
            `intra_threads` say otherwise. For a single sentence a model of at least `TOGETHER`
            bytes is loaded a second time, and up to four cores translate it together.

    Raises:
        ValueError: Without `other`, for an option that CTranslate2 lacks: `terminology`,
            `sampling`, `diversity`, `repetition_penalty` (theirs changes logits, not
            log-probabilities), or functions of your own.

    Example:

    ```python
    kt.load_translator("runs/en-de", engine="ctranslate2").translate(["A man rides a horse ."])
    ```
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        tokenizer: Any,
        target_tokenizer: Any = None,
        *,
        seen: Seen | None = None,
        learned_positions: int | None = None,
        other: Callable[[], Translator] | None = None,
        **options: Any,
    ) -> None:
        import ctranslate2

        self.tokenizer, self.target_tokenizer = tokenizer, target_tokenizer or tokenizer
        self.seen, self.weights = seen, None
        self._other = other
        self._said: set[str] = set()
        self._searches: dict[Any, Any] = {}
        self._learned = learned_positions
        load = functools.partial(ctranslate2.Translator, os.fspath(folder))
        self._alone = None  # loads what translates a single sentence, if that is another one
        if options.get("device", "cpu") == "cpu":
            large = os.path.getsize(os.path.join(folder, "model.bin")) >= TOGETHER
            if large and cores() > 1 and not {"inter_threads", "intra_threads"} & {*options}:
                together = functools.partial(load, intra_threads=min(cores(), 4), **options)
                self._alone = functools.cache(together)
            options = {"inter_threads": cores(), "intra_threads": 1, **options}
        self._engine = load(**options)

    @property
    def models(self) -> list[Any]:  # type: ignore[override]
        """Our own models, if `other` was given; CTranslate2 shows nothing of its own."""
        other = self.other
        return [] if other is None else other.models

    @property
    def other(self) -> Translator | None:
        """The translator by our own engine, if it was given."""
        return self._other and self._other()

    def learned_positions(self, *embeddings: str) -> int | None:
        return self._learned

    def kind_of(self, items: Sequence[Item], wanted: Wanted) -> Hashable:
        other = self.other if _lacks(items, wanted) else None
        return None if other is None else other.kind_of(items, wanted)

    def compile_search(self, wanted: Wanted, width: int, rows: int) -> None:
        """Does nothing: this engine compiles no searches."""

    def check(self, items: Sequence[Item], wanted: Wanted) -> None:
        super().check(items, wanted)
        lacking = _lacks(items, wanted)
        if lacking and self._other is None:
            raise ValueError(
                f"The engine ctranslate2 has no {' and no '.join(lacking)}: leave it out, or use "
                "the default engine."
            )

    def _translated(self, items, wanted, limits, text_of):
        if _lacks(items, wanted) and self.other is not None:
            self._searches = self.other._searches  # for `compiled_shapes`
            return self.other._translated(items, wanted, limits, text_of)
        results: list[Any] = [
            None if item.source else [Hypothesis("", [], 0.0)] * wanted.n for item in items
        ]
        left = [i for i, item in enumerate(items) if item.source]
        options = self._options_of(wanted)
        engine = self._alone() if self._alone and len(left) == 1 else self._engine
        batch_size, tokens = limits
        batch_size = self._shared_out(len(left), batch_size)
        if tokens is not None:
            batch_size, options["batch_type"] = tokens, "tokens"
        total = sum(len(item.source) for item in items)
        with progress.work("translating", total, "source tokens") as done:
            for chosen in _chunks(sorted(left, key=lambda i: -len(items[i].source))):
                some = [items[i] for i in chosen]
                longest = [self._limit(item, wanted) - 1 for item in some]
                found = engine.translate_batch(
                    [self._pieces(self.tokenizer, item.source) for item in some],
                    [self._pieces(self.target_tokenizer, item.prefix) for item in some],
                    max_batch_size=batch_size,
                    beam_size=wanted.beam_size,
                    num_hypotheses=wanted.beam_size,
                    length_penalty=_alpha(wanted),
                    max_input_length=0,
                    max_decoding_length=max(longest),
                    return_scores=True,
                    **options,
                )
                for i, one, limit in zip(chosen, found, longest, strict=True):
                    results[i] = self._ranked(one, wanted, limit)
                done(sum(len(item.source) for item in some))
        return results

    def _ranked(self, found, wanted, limit):
        """The best n hypotheses by our own length penalty, of at most `limit` tokens."""
        scored, alpha = [], _alpha(wanted)
        for pieces, score in zip(found.hypotheses, found.scores, strict=True):
            length = len(pieces) + 1  # with the end
            divisor = _penalties(wanted.length_penalty, 1 << length.bit_length())[length]
            scored.append((score * length**alpha / divisor, pieces[:limit]))
        best = sorted(scored, key=lambda one: -one[0])[: wanted.n]
        return [self._hypothesis(pieces, score) for score, pieces in best]

    def _hypothesis(self, pieces, score):
        ids = [self.target_tokenizer.piece_to_id(piece) for piece in pieces]
        return Hypothesis(self.target_tokenizer.decode(ids), ids, score)

    def _shared_out(self, count, batch_size):
        """The size of batches: of few sentences each core gets a part."""
        return max(1, min(batch_size, -(-count // self._engine.num_translators)))

    def _options_of(self, wanted):
        """Their names of what the search was asked for."""
        found: dict[str, Any] = {"min_decoding_length": 0}
        if wanted.beam_size > 1:
            found["patience"] = PATIENCE
        for each in wanted.adjust:
            if isinstance(each, MinLength):
                found["min_decoding_length"] = each.tokens
            elif isinstance(each, NoRepeat):
                found["no_repeat_ngram_size"] = each.size
            elif isinstance(each, Suppress):
                pieces = [self._pieces(self.target_tokenizer, ids) for ids in each.sequences]
                found["suppress_sequences"] = pieces
        return found

    @staticmethod
    def _pieces(tokenizer, ids):
        return [tokenizer.id_to_piece(id) for id in ids]

    def token_log_probabilities(self, pairs: Any, batch_size: int = 64) -> list[list[float]]:
        pairs, batch_size = list(pairs), arguments.whole_number("batch_size", batch_size)
        ids = encode_pairs(pairs, self.encode_sources, self.target_tokenizer)
        if max((len(side) for pair in ids for side in pair), default=0) >= POSITIONS:
            if self.other is None:
                raise ValueError(
                    f"The engine ctranslate2 has no positions from {POSITIONS:,} on: shorten the "
                    "texts, or use the default engine."
                )
            return self.other.token_log_probabilities(pairs, batch_size)
        found = self._engine.score_batch(
            [self._pieces(self.tokenizer, source) for source, _ in ids],
            [self._pieces(self.target_tokenizer, target) for _, target in ids],
            max_batch_size=self._shared_out(len(ids), batch_size),
            max_input_length=0,
        )
        return [list(one.log_probs) for one in found]


def _lacks(items, wanted):
    """What a search was asked for that CTranslate2 cannot do, in words."""
    found = ["terminology"] if any(item.phrases for item in items) else []
    longest = max((len(item.source) + IdTranslator.EXTRA_LENGTH for item in items), default=0)
    if max(longest, wanted.max_length or 0) >= POSITIONS:
        found.append(f"positions from {POSITIONS:,} on, which a text of so many tokens needs")
    found += ["sampling as here"] if wanted.draw is not None else []
    for each in wanted.adjust:
        if type(each) not in (MinLength, NoRepeat, Suppress):
            found.append(OTHERS.get(type(each), "functions of your own"))
    return list(dict.fromkeys(found))


@functools.lru_cache(maxsize=64)
def _penalties(length_penalty, count):
    """Our length penalty of the lengths below `count`. Keras takes a millisecond for each."""
    lengths = np.maximum(np.arange(count), 1)
    return ops.convert_to_numpy(penalty_of(length_penalty)(lengths)).tolist()


def _alpha(wanted):
    """The exponent of the length that comes closest to our length penalty."""
    if wanted.beam_size == 1:
        return 0.0
    return 1.0 if wanted.length_penalty == "average" else float(wanted.length_penalty)


def _chunks(numbers, size=2048):
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]
