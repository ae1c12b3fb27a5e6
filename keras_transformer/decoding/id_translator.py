"""Ids to ids: the search with one model or an ensemble, compiled for a few shapes."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from keras import ops

from keras_transformer import arguments
from keras_transformer.decoding import scoring, search, shapes
from keras_transformer.decoding.constrained import constrained_search
from keras_transformer.decoding.next_token import IMPOSSIBLE, Inputs, MinLength
from keras_transformer.decoding.sampling import choose
from keras_transformer.decoding.uncached import searchable
from keras_transformer.ops import Tensor, beams
from keras_transformer.ops.capabilities import compiles_functions
from keras_transformer.ops.compilation import compile_with_weights
from keras_transformer.ops.crossentropy import token_nats
from keras_transformer.ops.labels import check_special_ids
from keras_transformer.ops.memory import keep_freed_memory
from keras_transformer.text.protocol import check_tokenizer


class Item(NamedTuple):
    """What is translated: ids of a source, and how its target begins."""

    source: list[int]
    prefix: list[int]
    phrases: list[list[int]] = []  # what its target must hold
    random: tuple[int, ...] = ()  # the seed of its random numbers


class Wanted(NamedTuple):
    """What a search shall find. Searches for the same share one compiled function."""

    n: int
    beam_size: int
    length_penalty: float | str
    max_length: int | None = None
    adjust: tuple = ()
    draw: Any = None

    def apart(self) -> tuple["Wanted", list[np.ndarray]]:
        """What a search is compiled for, and the arrays of the numbers that are its inputs."""
        arrays: list[np.ndarray] = []

        def apart(part):
            if not isinstance(part, Inputs):
                return part
            part, more = part.apart()
            arrays.extend(more)
            return part

        parts = {"adjust": tuple(map(apart, self.adjust)), "draw": apart(self.draw)}
        return self._replace(max_length=None, **parts), arrays  # `limits` have max_length

    def joined(self, arrays: Sequence[Any]) -> "Wanted":
        """Undoes `apart`, with these arrays."""
        left = iter(arrays)

        def joined(part):
            return part.joined(left) if isinstance(part, Inputs) else part

        return self._replace(adjust=tuple(map(joined, self.adjust)), draw=joined(self.draw))


@dataclasses.dataclass(frozen=True)
class Draw(Inputs):
    """Draws each token with the numbers of `rows["uniforms"]` [R, length]; see `choose`."""

    INPUTS: ClassVar = {"temperature": "float32", "top_p": "float32"}
    temperature: float
    top_k: int | None
    top_p: float | None

    def __call__(self, log_probs: Tensor, index: Tensor, rows: dict[str, Tensor]) -> Tensor:
        uniforms = ops.take(rows["uniforms"], index, axis=1)
        scores = log_probs / self.temperature
        return choose(scores, uniforms, top_k=self.top_k, top_p=self.top_p)


def _rows_of(items, wanted, rows, length):
    """The arrays [rows, ...] that the search needs beside the sources, by name."""
    found = {}
    longest = max(len(item.prefix) for item in items)
    if longest:
        found["prefix"] = np.full((rows, max(8, 1 << (longest - 1).bit_length())), -1, "int32")
        for row, item in enumerate(items):
            found["prefix"][row, : len(item.prefix)] = item.prefix
    if any(item.phrases for item in items):
        count, longest = _phrase_shape(items)
        found["phrases"] = np.full((rows, count, longest), -1, "int32")
        for row, item in enumerate(items):
            for place, phrase in enumerate(item.phrases):
                found["phrases"][row, place, : len(phrase)] = phrase
    if wanted.draw is not None:
        found["uniforms"] = np.zeros((rows, length), "float32")
        for row, item in enumerate(items):
            found["uniforms"][row] = np.random.default_rng(item.random).random(length, "float32")
    return found


def least_length(wanted: Wanted) -> int:
    """The `min_length` that is wanted, or 0."""
    return max((each.tokens for each in wanted.adjust if isinstance(each, MinLength)), default=0)


def _phrase_shape(items):
    """Room for the phrases of a batch: their number and length, rounded up to few values."""
    count = max(len(item.phrases) for item in items)
    longest = max(len(phrase) for item in items for phrase in item.phrases)
    return 1 << (count - 1).bit_length(), -(-longest // 4) * 4


def _with_banks(wanted, items):
    """What is wanted, with a beam that has room for each number of tokens of the phrases."""
    return wanted._replace(beam_size=wanted.beam_size + max(map(bank, items)))


def bank(item: Item) -> int:
    """How much wider the beam of an item is: by its phrases' tokens, rounded up to few values."""
    return -(-sum(map(len, item.phrases)) // 4) * 4


class IdTranslator:
    """Translates ids: the part of a `Translator`, with its arguments, that reads no text."""

    # The paper's limit (section 6.1): source length + 50.
    EXTRA_LENGTH = 50

    def __init__(self, model: Any, tokenizer: Any, target_tokenizer: Any = None) -> None:
        for each in (tokenizer, target_tokenizer or tokenizer):
            check_tokenizer(each)
        models = list(model) if isinstance(model, list | tuple) else [model]
        self.models = [searchable(each) for each in models]
        self.tokenizer = tokenizer
        self.target_tokenizer = target_tokenizer or tokenizer
        for each in self.models:
            for embedding, vocabulary in (
                (each.source_embedding, self.tokenizer),
                (each.target_embedding, self.target_tokenizer),
            ):
                size = embedding.vocabulary_size
                if size is not None and vocabulary.vocabulary_size > size:
                    raise ValueError(
                        f"The tokenizer has {vocabulary.vocabulary_size} pieces and the model "
                        f"{size}: this tokenizer is not the model's."
                    )
        target = self.target_tokenizer
        check_special_ids(target.start_id, target.end_id, target.pad_id)
        sizes = {each.target_embedding.vocabulary_size for each in self.models}
        if len(sizes) != 1:
            raise ValueError(
                f"An ensemble is one or more models of one vocabulary; got {len(self.models)} "
                f"with target vocabularies of {sorted(sizes)} pieces."
            )
        keep_freed_memory()
        self._searches: dict[Any, Any] = {}  # compiled functions
        self._asked: collections.Counter[int] = collections.Counter()  # sentences of each width

    @functools.cached_property
    def _size(self):
        return shapes.count_weights(self.models)

    def _search(self, items, wanted, whole):
        """Returns up to `n` pairs for each item: target ids without the end, and their score.

        With `whole` there is room for the longest target, otherwise for most. An item whose target
        did not fit gets None.
        """
        wanted = _with_banks(wanted, items)
        width = self._width(max(len(item.source) for item in items) + 1)
        repays = shapes.repays(self._size, self._asked[width] * wanted.beam_size, width)
        coarse = compiles_functions() and not repays
        lengths = shapes.COARSE_LENGTHS if coarse else shapes.SOURCE_LENGTHS
        source_ids, limits = self.batch([item.source for item in items], lengths)
        rows, width = source_ids.shape
        for row, item in enumerate(items):
            if item.prefix or item.phrases or wanted.max_length is not None or least_length(wanted):
                limits[row] = self._limit(item, wanted)
        longest = self._longest_target(width)
        if limits.max() > longest:  # because of max_length or a prefix
            longest = shapes.width_for(
                int(limits.max()), self.learned_positions("target_embedding")
            )
        length = longest if whole else min(longest, shapes.room_for(width))
        shrink_to = rows // 4 if rows >= 16 and repays else None
        extra = _rows_of(items, wanted, rows, length)
        wanted, inputs = wanted.apart()

        def run(source_ids, limits, *arrays):
            full, arrays = wanted.joined(arrays), arrays[len(inputs) :]
            return self.search_ids(
                source_ids,
                limits,
                length,
                *wanted[:3],
                adjust=full.adjust,
                rows={"source_ids": source_ids, **dict(zip(extra, arrays, strict=True))},
                draw=full.draw,
                shrink_to=shrink_to,
            )

        compiled = self._compiled((wanted, length, shrink_to, *extra), run)
        arrays = compiled(source_ids, limits, *inputs, *extra.values())
        ids, scores, done = map(ops.convert_to_numpy, arrays)
        return [
            self._finished(ids[row, : wanted.n], scores[row, : wanted.n]) if done[row] else None
            for row in range(len(items))
        ]

    def kind_of(self, items: Sequence[Item], wanted: Wanted) -> Hashable:
        """What decides, beside lengths and numbers of sentences, which search is compiled.

        It is None where nothing is compiled.
        """
        if not compiles_functions():
            return None
        shared, inputs = _with_banks(wanted, items).apart()
        rows = _rows_of(items, wanted, len(items), 1)
        shapes_of = {name: array.shape[1:] for name, array in rows.items()}
        return shared, tuple(each.shape for each in inputs), tuple(shapes_of.items())

    def compile_search(self, wanted: Wanted, width: int, rows: int) -> None:
        """Compiles a search for `rows` sources of up to `width` tokens, their ends included."""
        width = min(width, self.learned_positions("source_embedding") or width)
        item = Item([self.tokenizer.end_id] * (width - 1), [])
        self._search([item] * rows, wanted._replace(max_length=1 + least_length(wanted)), False)

    def check(self, items: Sequence[Item], wanted: Wanted) -> None:
        """Raises a ValueError if a search cannot give what is wanted."""
        for item in items:
            if item.source and (item.prefix or item.phrases or least_length(wanted)):
                self._limit(item, wanted)

    def _limit(self, item, wanted):
        """The greatest length of a target, with its end."""
        forced = len(item.prefix) + sum(map(len, item.phrases))
        least, learned = least_length(wanted), self.learned_positions("target_embedding")
        if wanted.max_length is None:
            limit = max(max(len(item.source), forced) + self.EXTRA_LENGTH, least + 1)
        else:
            limit = wanted.max_length + 1
        limit = limit if learned is None else min(limit, learned)
        if least >= limit:
            raise ValueError(
                f"min_length={least} does not fit into the {limit - 1} tokens that a translation "
                "may have: lower it."
            )
        if forced >= limit:
            raise ValueError(
                f"A prefix and a terminology of {forced} tokens do not fit into {limit - 1}: "
                "shorten them, or raise max_length."
            )
        return limit

    def _finished(self, ids, scores):
        found = []
        for row, score in zip(ids, scores, strict=True):
            if score > IMPOSSIBLE / 2:
                length = int(np.argmax(row == self.target_tokenizer.end_id))
                found.append((row[:length].tolist(), float(score)))
        return found

    def batch(
        self, sources: Sequence[Sequence[int]], lengths: Sequence[int] = shapes.SOURCE_LENGTHS
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists of ids -> ids [B, S], ended and padded to a shape to compile, and limits [B].

        `lengths` are the widths S to choose from; see `shapes.width_for`.
        """
        width = self._width(max(map(len, sources)) + 1, lengths)
        rows = shapes.rows_for(len(sources))
        source_ids = np.zeros((rows, width), "int32")
        # Rows that only fill the shape end at once.
        max_lengths = np.ones((rows,), "int32")
        for row, ids in enumerate(sources):
            source_ids[row, : len(ids) + 1] = [*ids, self.tokenizer.end_id]
            max_lengths[row] = self._longest_target(len(ids))
        return source_ids, max_lengths

    def arrays_of(self, pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[Any, Any]:
        """Pairs of ids -> source ids [B, S] and target ids [B, 1 + S], in a shape to compile."""
        longest = max(len(side) for pair in pairs for side in pair) + 1
        width = self._width(longest, sides=("source_embedding", "target_embedding"))
        rows = shapes.rows_for(len(pairs))
        return scoring.arrays(pairs, rows, width, self.tokenizer, self.target_tokenizer)

    def _width(self, longest, lengths=shapes.SOURCE_LENGTHS, sides=("source_embedding",)):
        return shapes.width_for(longest, self.learned_positions(*sides), lengths)

    def _longest_target(self, source_length):
        learned = self.learned_positions("target_embedding")
        longest = source_length + self.EXTRA_LENGTH
        return longest if learned is None else min(longest, learned)

    def learned_positions(self, *embeddings: str) -> int | None:
        """The fewest positions that a member has learned; None for sinusoids, without a limit.

        Args:
            *embeddings: `"source_embedding"` or `"target_embedding"`, or both.
        """
        limits = [getattr(each, name).max_length for each in self.models for name in embeddings]
        return min((limit for limit in limits if limit is not None), default=None)

    def _compiled(self, key, function):
        if key not in self._searches:
            # Threads may come here at once, and must get one function.
            self._searches.setdefault(key, compile_with_weights(function, *self.models))
        return self._searches[key]

    def search_ids(
        self,
        source_ids: Tensor,
        max_lengths: Tensor,
        length: Tensor,
        n: int,
        beam_size: int,
        length_penalty: float | str,
        watched_loop: Callable | None = None,
        draw: Callable | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The whole search as tensor operations, to be compiled or exported.

        Args:
            source_ids: Integers [B, S], with their ends, padded.
            max_lengths: Integers [B], the greatest length of each target, with its end.
            length: The room for targets. Like the shapes, it may be known only at run time.
            n: How many hypotheses per source are wanted.
            beam_size: Hypotheses per source, N.
            length_penalty: See `translate`.
            watched_loop: The `while_loop` of `beam_search`, which then also runs if N is 1.
            draw: See `greedy_search`. N must be 1.
            **options: `adjust`, `rows` and `shrink_to` of `greedy_search`.

        Returns:
            ids [B, N, length], scores [B, N], and booleans [B], True where the search has ended.
        """
        penalty = penalty_of(length_penalty)
        caches = []
        for model in self.models:
            memory, memory_mask = model.encode(source_ids)
            cache = model.start_cache(memory, length, beam_size)
            caches.append({**cache, "memory_mask": memory_mask})

        def step(ids, caches, index):
            logits, grown = [], []
            for model, cache in zip(self.models, caches, strict=True):
                mask = cache["memory_mask"]
                found, cache = model.decode(ids[:, None], None, mask, cache, index)
                logits.append(found[:, 0])
                grown.append({**cache, "memory_mask": mask})
            return _mean_of_probabilities(logits), grown

        def reorder(caches, rows):
            return [beams.of_sequences(each, rows) for each in caches]

        pad_id = self.target_tokenizer.pad_id
        common = {
            "length": length,
            "start_id": self.target_tokenizer.start_id,
            "end_id": self.target_tokenizer.end_id,
            "pad_id": pad_id,
            **options,
            "shrink_cache": lambda caches, rows: [
                beams.of_sources(c, rows, beam_size) for c in caches
            ],
        }
        if "phrases" in (options.get("rows") or {}):
            del common["shrink_to"], common["shrink_cache"]
            return constrained_search(
                step,
                caches,
                max_lengths,
                beam_size=beam_size,
                penalty=penalty,
                n_best=n,
                reorder=reorder,
                **common,
            )
        if beam_size == 1 and watched_loop is None:
            found, scores, done = search.greedy_search(
                step, caches, max_lengths, draw=draw, **common
            )
            lengths = ops.sum(ops.cast(ops.not_equal(found, pad_id), "int32"), axis=1)
            return found[:, None], (scores / penalty(lengths))[:, None], done
        return search.beam_search(
            step,
            caches,
            max_lengths,
            beam_size=beam_size,
            penalty=penalty,
            n_best=n,
            reorder=reorder,
            while_loop=watched_loop or ops.while_loop,
            **common,
        )

    def score_ids(self, source_ids: Tensor, target_ids: Tensor) -> Tensor:
        """Source ids [B, S] and target ids [B, 1 + T] with start and end -> log-probabilities.

        They are [B, T] in nats, of each token given those before it.
        """
        # The end is an input too, which changes nothing before it.
        inputs = target_ids[:, :-1]
        logits = [model.decode(inputs, *model.encode(source_ids)) for model in self.models]
        return -token_nats(target_ids[:, 1:], _mean_of_probabilities(logits))


def penalty_of(length_penalty: float | str) -> Callable[[Tensor], Tensor]:
    """Returns the divisor of a score by length, for `length_penalty` of `translate`."""
    alpha = arguments.length_penalty(length_penalty)
    return search.average_penalty() if isinstance(alpha, str) else search.gnmt_penalty(alpha)


def _mean_of_probabilities(logits):
    """Logits [..., V] of the members of an ensemble -> those of the mean of their probabilities."""
    if len(logits) == 1:
        return logits[0]
    log_probs = [ops.log_softmax(ops.cast(each, "float32"), axis=-1) for each in logits]
    # Not divided by the number of members: softmax takes no notice of a constant factor.
    return ops.logsumexp(ops.stack(log_probs), axis=0)
