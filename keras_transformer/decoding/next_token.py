"""The one place where a search is told what may come next, and how probable it is.

An adjustment is a pure function `(log_probs, ids, index, rows) -> log_probs` over `keras.ops`. It
is compiled into the loop of the search:

- log_probs: floats [R, V], the model's log-probabilities of the next token in nats.
- ids: integers [R, length], the tokens of each hypothesis so far; those from `index` on are no
  tokens yet. The start is not among them.
- index: a scalar, how many tokens there are.
- rows: a dictionary of tensors [R, ...] that belong to the rows: "source_ids" [R, S] and what the
  adjustments of this module need.

What is returned as `IMPOSSIBLE` is never chosen. Two adjustments that are equal share one compiled
search, so those that have options are frozen dataclasses. Those of this module share one also if
they differ in numbers that are `Inputs`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from keras import ops

from keras_transformer import arguments
from keras_transformer.ops import Tensor
from keras_transformer.ops.top_k import top_k

Adjust = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], Tensor]

# Below every sum of log-probabilities: the score of what is forbidden or does not exist.
IMPOSSIBLE = -1e9


def next_log_probs(
    logits: Tensor,
    ids: Tensor,
    index: Tensor,
    max_lengths: Tensor,
    *,
    end_id: int,
    never: Sequence[int],
    adjust: Sequence[Adjust] = (),
    rows: dict[str, Tensor] | None = None,
) -> Tensor:
    """Log-probabilities [R, V] of the next ids; the last possible one is the end.

    They are normalised over the whole vocabulary, so that a hypothesis' score is its
    teacher-forced log-probability. Only then they are adjusted, and what may not follow becomes
    impossible. A token that is forced, the end in the last place or the next one of
    `rows["prefix"]` [R, P] (-1 behind its end), keeps its log-probability, whatever the
    adjustments say.
    """
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    forced = ops.where(ops.equal(index + 1, max_lengths), end_id, -1)  # [R]
    if rows and "prefix" in rows:
        forced = ops.where(forced < 0, _at(rows["prefix"], index), forced)
    tokens = ops.arange(logits.shape[-1], dtype="int32")[None, :]  # [1, V]
    is_forced = ops.equal(tokens, forced[:, None])
    barred = ops.logical_and(forced[:, None] >= 0, ops.logical_not(is_forced))
    for token in never:
        barred = ops.logical_or(barred, ops.equal(tokens, token))
    adjusted = log_probs
    for each in adjust:
        adjusted = each(adjusted, ids, index, rows or {})
    if adjust:
        adjusted = ops.where(is_forced, log_probs, adjusted)
    return ops.where(barred, IMPOSSIBLE, adjusted)


def _at(prefix, index):
    """The ids [R] in column `index` of `prefix` [R, P]; -1 where there is none."""
    found = ops.take(prefix, ops.minimum(index, prefix.shape[1] - 1), axis=1)
    return ops.where(index < prefix.shape[1], found, -1)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A part of a search whose numbers are inputs of the compiled function.

    A new value of such a number compiles nothing. `INPUTS` has the names of the fields and their
    dtypes. A field that is None is no input.
    """

    INPUTS: ClassVar[dict[str, str]] = {}

    def apart(self) -> tuple[Self, list[np.ndarray]]:
        """Returns itself with the dtypes of its inputs for their values, and these as arrays."""
        dtypes = self._dtypes()
        arrays = [self._array(name).astype(dtype) for name, dtype in dtypes.items()]
        return dataclasses.replace(self, **dtypes), arrays

    def joined(self, arrays: Iterator[Any]) -> Self:
        """Returns itself with the next of `arrays` as its inputs; undoes `apart`."""
        return dataclasses.replace(self, **{name: next(arrays) for name in self._dtypes()})

    def _dtypes(self):
        return {n: dtype for n, dtype in self.INPUTS.items() if getattr(self, n) is not None}

    def _array(self, name):
        return np.asarray(getattr(self, name))


@dataclasses.dataclass(frozen=True)
class MinLength(Inputs):
    """Bars the end before there are `tokens` tokens."""

    INPUTS: ClassVar = {"tokens": "int32"}
    tokens: int
    end_id: int

    def __call__(self, log_probs: Tensor, ids: Tensor, index: Tensor, rows: dict) -> Tensor:
        is_end = ops.equal(ops.arange(log_probs.shape[-1], dtype="int32"), self.end_id)[None]
        return ops.where(
            ops.logical_and(is_end, ops.less(index, self.tokens)), IMPOSSIBLE, log_probs
        )


@dataclasses.dataclass(frozen=True)
class Suppress(Inputs):
    """Bars sequences of ids: the last id of each, where the others stand before it.

    Args:
        sequences: Tuples of ids, at least one in each.
    """

    INPUTS: ClassVar = {"sequences": "int32"}
    sequences: tuple[tuple[int, ...], ...]

    def _array(self, name):
        """The sequences as [C, L], ends aligned, -1 where there is no id, in a shape of few."""
        longest = -(-max(map(len, self.sequences)) // 4) * 4
        rows = max(4, 1 << (len(self.sequences) - 1).bit_length())
        table = np.full((rows, longest), -1)
        for row, ids in zip(table, self.sequences, strict=False):
            row[-len(ids) :] = ids
        return table

    def __call__(self, log_probs: Tensor, ids: Tensor, index: Tensor, rows: dict) -> Tensor:
        table = self.sequences
        if isinstance(table, tuple):  # not an input of a compiled function
            table = ops.convert_to_tensor(self._array("sequences"), "int32")
        before = newest(ids, index, table.shape[1] - 1)[:, None]  # [R, 1, L - 1]
        beginning, last = table[None, :, :-1], table[None, :, -1]
        fits = ops.all(ops.logical_or(ops.equal(before, beginning), beginning < 0), axis=2)
        # What does not fit bars id 0, which is padding and never chosen.
        barred = ops.where(ops.logical_and(fits, last >= 0), last, 0)  # [R, C]
        return _written(log_probs, barred, ops.full_like(barred, IMPOSSIBLE, dtype="float32"))


@dataclasses.dataclass(frozen=True)
class NoRepeat:
    """Bars every sequence of `size` tokens that the hypothesis already has; the end may follow."""

    size: int
    end_id: int

    def __call__(self, log_probs: Tensor, ids: Tensor, index: Tensor, rows: dict) -> Tensor:
        places = ops.shape(ids)[1] - self.size + 1  # where a sequence can begin
        if not isinstance(places, int):  # known only at run time
            places = ops.maximum(places, 0)
        elif places < 1:
            return log_probs
        fits = ops.arange(places, dtype="int32")[None] + self.size <= index  # whole already
        before = newest(ids, index, self.size - 1)  # [R, size - 1]
        for offset in range(self.size - 1):
            same = ops.equal(ids[:, offset : offset + places], before[:, offset : offset + 1])
            fits = ops.logical_and(fits, same)
        fits = ops.broadcast_to(fits, (ops.shape(ids)[0], places))
        following = ids[:, self.size - 1 :]
        # What does not fit bars id 0, which is padding and never chosen.
        barred = ops.where(ops.logical_and(fits, following != self.end_id), following, 0)
        return _written(log_probs, barred, ops.full_like(barred, IMPOSSIBLE, dtype="float32"))


@dataclasses.dataclass(frozen=True)
class RepetitionPenalty(Inputs):
    """Multiplies the log-probability of tokens that the hypothesis has (Keskar et al., 2019).

    Args:
        factor: Above 1 makes them less probable.
    """

    INPUTS: ClassVar = {"factor": "float32"}
    factor: float

    def __call__(self, log_probs: Tensor, ids: Tensor, index: Tensor, rows: dict) -> Tensor:
        there = ops.arange(ops.shape(ids)[1], dtype="int32")[None] < index
        ids = ops.where(there, ids, 0)  # padding, which is never chosen
        return _written(log_probs, ids, self.factor * ops.take_along_axis(log_probs, ids, axis=1))


@dataclasses.dataclass(frozen=True)
class Siblings(Inputs):
    """Lowers a token by its rank among those that may follow the hypothesis (Li et al., 2016).

    ```
    log p(token) - penalty * (number of more probable tokens, at most RANKS)
    ```

    So a beam holds fewer continuations of one hypothesis, and its results differ more
    (https://arxiv.org/abs/1611.08562, with ranks from 0). Greedy search does not change.

    Args:
        penalty: In nats for each rank.
    """

    RANKS: ClassVar = 16
    INPUTS: ClassVar = {"penalty": "float32"}
    penalty: float

    def __call__(self, log_probs: Tensor, ids: Tensor, index: Tensor, rows: dict) -> Tensor:
        highest, _ = top_k(log_probs, min(self.RANKS, log_probs.shape[-1]))
        highest = ops.transpose(highest)  # [RANKS, R]
        rank = ops.zeros_like(log_probs)
        for place in range(highest.shape[0]):
            rank = rank + ops.cast(log_probs < highest[place][:, None], log_probs.dtype)
        return log_probs - self.penalty * rank


def newest(ids: Tensor, index: Tensor, count: int) -> Tensor:
    """The last `count` of the first `index` ids [R, length], -1 for missing ones: [R, count]."""
    places = index - count + ops.arange(count, dtype="int32")
    found = ops.take(ids, ops.maximum(places, 0), axis=1)
    return ops.where(places[None] >= 0, found, -1)


def _written(log_probs, ids, values):
    """`log_probs` [R, V] with `values` [R, M] at `ids` [R, M]; equal ids have equal values."""
    rows = ops.broadcast_to(ops.arange(ops.shape(ids)[0], dtype="int32")[:, None], ops.shape(ids))
    places = ops.reshape(ops.stack([rows, ids], axis=-1), (-1, 2))
    return ops.scatter_update(log_probs, places, ops.reshape(values, (-1,)))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Draws each token at random instead of taking the most probable one.

    Args:
        temperature: Divides the log-probabilities; below 1 probable tokens become more probable.
        top_k: Draws only from the k most probable tokens.
        top_p: Draws only from the most probable tokens whose probabilities together reach p.
        seed: The same seed draws the same translations, whatever else is translated beside.
        first: The number of the first text, for texts that are translated in several calls.

    Raises:
        ValueError: If a value is out of its range.

    Example:

    ```python
    translator.translate(["a b"], sampling=kt.decoding.Sampling(temperature=0.8, top_p=0.9, seed=1))
    ```
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    first: int = 0

    def __post_init__(self):
        arguments.real_number("temperature", self.temperature)
        arguments.whole_number("seed", self.seed, least=0)
        arguments.whole_number("first", self.first, least=0)
        if self.top_k is not None:
            advice = "None draws from all tokens."
            arguments.whole_number("top_k", self.top_k, advice=advice)
        if self.top_p is not None and not 0 < arguments.real_number("top_p", self.top_p) <= 1:
            raise ValueError(f"top_p is above 0 and at most 1, got {self.top_p}.")


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What a translation must, may and must not hold; an argument of `translate` by each name.

    Lengths are in tokens, without the end.

    Args:
        min_length: The least number of tokens.
        max_length: The greatest number of tokens, instead of 50 more than the source has.
        no_repeat_ngram: No sequence of so many tokens occurs twice. 0 allows all.
        repetition_penalty: Multiplies the log-probability of tokens that the translation already
            has. 1 changes nothing, 1.2 is usual.
        diversity: Makes the results of a beam differ: a token is lowered by so many nats for each
            token that is more probable in its place. 0 changes nothing; try 0.5.
        suppress: Words that are not written, in the spelling given. They are barred as the
            vocabulary writes them: other pieces can spell a word too, which is rare.
        sampling: A `Sampling`, instead of a beam. `n_best` then draws n times and returns the
            different translations.
        adjust: Functions of your own; see `keras_transformer.decoding.next_token`.

    Raises:
        ValueError: If a value is out of its range.

    Example:

    ```python
    def no_copy(log_probs, ids, index, rows):
        source = keras.ops.one_hot(rows["source_ids"], log_probs.shape[-1])  # [R, S, V]
        return log_probs - 5.0 * keras.ops.max(source, axis=1)

    translator.translate(["a b"], no_repeat_ngram=3, adjust=[no_copy])
    ```
    """

    min_length: int = 0
    max_length: int | None = None
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0
    diversity: float = 0.0
    suppress: tuple[str, ...] = ()
    sampling: Sampling | None = None
    adjust: tuple[Adjust, ...] = ()

    def __post_init__(self):
        for name in ("min_length", "no_repeat_ngram"):
            arguments.whole_number(name, getattr(self, name), least=0)
        if self.max_length is not None:
            advice = "None allows 50 more than the source has."
            arguments.whole_number("max_length", self.max_length, max(1, self.min_length), advice)
        arguments.real_number("repetition_penalty", self.repetition_penalty)
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty is above 0, got {self.repetition_penalty}.")
        arguments.real_number("diversity", self.diversity)
        object.__setattr__(self, "suppress", tuple(arguments.strings(self.suppress, "suppress")))
        object.__setattr__(self, "adjust", tuple(self.adjust))
        if not all(map(callable, self.adjust)):
            raise ValueError(f"adjust is a list of functions, got {self.adjust}.")
        if self.sampling is not None and not isinstance(self.sampling, Sampling):
            raise ValueError(f"sampling is a kt.decoding.Sampling, got {self.sampling!r}.")
        if self.sampling is not None and self.diversity:
            raise ValueError("diversity is for a beam: leave it out, or sampling.")

    def adjustments(self, tokenizer: Any) -> tuple[Adjust, ...]:
        """The functions that do this, with the target's tokenizer, or None if there is none."""
        found: list[Adjust] = []
        end_id = -1 if tokenizer is None else tokenizer.end_id
        if self.min_length:
            found.append(MinLength(self.min_length, end_id))
        if self.suppress:
            words = tokenizer.encode(list(self.suppress))
            if sequences := tuple(tuple(ids) for ids in words if ids):
                found.append(Suppress(sequences))
        if self.no_repeat_ngram:
            found.append(NoRepeat(self.no_repeat_ngram, end_id))
        if self.repetition_penalty != 1:
            found.append(RepetitionPenalty(self.repetition_penalty))
        if self.diversity:
            found.append(Siblings(self.diversity))
        return (*found, *self.adjust)
