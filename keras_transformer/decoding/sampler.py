"""Continues texts with a language model: whole texts at once, or one of them piece by piece."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops, tree

from keras_transformer import arguments
from keras_transformer.decoding.next_token import IMPOSSIBLE, Sampling, SearchOptions
from keras_transformer.decoding.sampling import adjusted, choose, sample
from keras_transformer.ops.compilation import compile_with_weights


class _Wanted(NamedTuple):
    """How tokens are drawn. Calls that want the same share one compiled function."""

    temperature: float
    top_k: int | None
    top_p: float | None
    adjust: tuple = ()


class Sampler:
    """Continues texts with a `CausalLanguageModel`.

    It is compiled once per shape, and reads the weights anew at each call. A model sees at most as
    many tokens as it has learned positions. When they are full, the later half of the tokens moves
    to the front, and the text continues there.

    Args:
        model: A `CausalLanguageModel`.
        tokenizer: Its tokenizer, for prompts of text. A text ends where its end is drawn.

    Example:

    ```python
    Sampler(model).generate([[5, 6, 3]], length=200, temperature=0.8, top_k=40, seed=1)
    ```
    """

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        missing = [
            name for name in ("embedding", "start_cache", "decode") if not hasattr(model, name)
        ]
        if missing:
            raise ValueError(
                "A Sampler takes a CausalLanguageModel, or a model with its embedding, start_cache "
                f"and decode. Got a {type(model).__name__} without {', '.join(missing)}."
            )
        self.model, self.tokenizer = model, tokenizer
        self._compiled: dict[Any, Any] = {}

    def generate(
        self,
        prompts: Sequence[Any],
        length: int,
        temperature: float = 1.0,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        **options: Any,
    ) -> list[Any]:
        """Returns each prompt, followed by up to `length` new tokens.

        Args:
            prompts: Texts, if there is a tokenizer, or lists of ids; each has at least one token.
                Id 0 is padding and not allowed.
            length: How many tokens are drawn for each prompt.
            temperature, top_k, top_p: See `choose`.
            seed: Seed of the random numbers. The same seed draws the same ids.
            stop: A text ends before the first of these strings.
            **options: `no_repeat_ngram`, `repetition_penalty`, `suppress`, `min_length` and
                `adjust` of `kt.decoding.SearchOptions`. They see the prompt too.

        Returns:
            Texts for texts, lists of ids for lists of ids. They are shorter where the end or a
            `stop` was drawn.

        Raises:
            ValueError: If a prompt is empty, or an option is out of range.
        """
        length = arguments.whole_number("length", length, least=0)
        texts = self._prompts(prompts)
        wanted = self._wanted(Sampling(temperature, top_k, top_p, seed), options)
        stop = self._stops(stop, prompts)
        begins = [len(text) for text in texts]
        random = np.random.default_rng(seed)
        room = self._room(max(begins) + length)
        run = self._whole(len(texts), room, wanted)
        ends = [n + length for n in begins]
        while any(left := list(map(self._left, texts, begins, ends))):
            array = np.zeros((len(texts), room), "int32")
            counts = np.full(len(texts), room, "int32")  # of a text that is whole, nothing is drawn
            for place in np.flatnonzero(left):
                counts[place] = count = _seen(len(texts[place]), room)
                array[place, :count] = texts[place][-count:]
            uniforms = random.random((len(texts), room), "float32")
            found = ops.convert_to_numpy(run(array, counts, uniforms)).tolist()
            for ids, row, count, more in zip(texts, found, counts, left, strict=True):
                ids += row[count : count + more]
        ended = list(map(self._until_end, texts, begins))
        if not _are_texts(prompts):
            return ended
        whole = self.tokenizer.decode(ended)
        return [
            _until(text, stop, len(self.tokenizer.decode(ids[:n])))
            for text, ids, n in zip(whole, ended, begins, strict=True)
        ]

    def stream(
        self,
        prompt: Any,
        length: int,
        temperature: float = 1.0,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        **options: Any,
    ) -> Iterator[Any]:
        """Yields what follows one prompt, while it is drawn: joined, it is that of `generate`.

        Args:
            prompt: A text or a list of ids.
            length, temperature, top_k, top_p, seed, stop, **options: See `generate`.

        Returns:
            An iterator of strings for a text, of ids for ids. A string comes when no later token
            can change it.

        Example:

        ```python
        for piece in Sampler(model, tokenizer).stream("A man", length=20, seed=1):
            print(piece, end="", flush=True)
        ```
        """
        length = arguments.whole_number("length", length, least=0)
        [ids] = self._prompts([prompt])
        wanted = self._wanted(Sampling(temperature, top_k, top_p, seed), options)
        stop = self._stops(stop, [prompt])
        drawn = self._drawn(ids, length, wanted, seed)
        return self._pieces(ids, drawn, stop) if isinstance(prompt, str) else drawn

    def _prompts(self, prompts):
        """The prompts as lists of ids, each of them an id that is not padding."""
        if isinstance(prompts, str) or (_are_texts(prompts) and self.tokenizer is None):
            raise ValueError(
                f"Prompts are lists of ids, got text: {prompts!r}. Pass tokenizer.encode([text]), "
                "or a list of texts to Sampler(model, tokenizer)."
            )
        if _are_texts(prompts):
            prompts = self.tokenizer.encode(arguments.strings(prompts, "generate"))
        size, checked = self.model.embedding.vocabulary_size, []
        for prompt in prompts:
            ids = [arguments.whole_number("An id of a prompt", id) for id in prompt]
            if ids and max(ids) >= size:
                raise ValueError(
                    f"An id of a prompt is below the vocabulary of {size}, got {max(ids)}. "
                    "Is this the tokenizer that the model was trained with?"
                )
            checked.append(ids)
        if not checked or not all(checked):
            raise ValueError(
                "Prompts are one or more texts or lists of ids, with at least one token in each; "
                f"got lengths {[len(ids) for ids in checked]}."
            )
        return checked

    def _wanted(self, sampling, options):
        chosen = SearchOptions(**options)
        if chosen.max_length is not None or chosen.sampling is not None:
            raise ValueError("generate takes length, temperature, top_k and top_p instead.")
        if self.tokenizer is None and (chosen.suppress or chosen.min_length):
            raise ValueError("suppress and min_length need a tokenizer: Sampler(model, tokenizer).")
        draw = sampling.temperature, sampling.top_k, sampling.top_p
        return _Wanted(*draw, chosen.adjustments(self.tokenizer))

    def _stops(self, stop, prompts):
        stop = arguments.strings(stop, "stop")
        if stop and not (_are_texts(prompts) and all(stop)):
            raise ValueError(f"stop is for prompts of text, and not empty; got {stop}.")
        return stop

    def _room(self, longest):
        """How many tokens one pass has room for. The last is drawn but needs no position."""
        learned = self.model.embedding.max_length
        return longest if learned is None else min(learned + 1, longest)

    def _step(self):
        size, tokenizer = self.model.embedding.vocabulary_size, self.tokenizer
        most = size if tokenizer is None else min(size, tokenizer.vocabulary_size)

        def step(ids, cache, index):
            logits, cache = self.model.decode(ids[:, None], cache, index)
            tokens = ops.arange(logits.shape[-1])
            never = ops.logical_or(ops.equal(tokens, 0), tokens >= most)  # padding, or no token
            return ops.where(never, IMPOSSIBLE, logits[:, 0]), cache

        return step

    def _whole(self, rows, room, wanted):
        """A compiled function that fills texts of `room` tokens."""
        key = (rows, room, wanted)
        if key not in self._compiled:

            def run(prompts, prompt_lengths, uniforms):
                cache = self.model.start_cache(rows, room - 1)
                given = self._step(), cache, prompts, prompt_lengths, uniforms
                return sample(*given, **wanted._asdict(), end_id=self._end_id())

            self._compiled[key] = compile_with_weights(run, self.model)
        return self._compiled[key]

    def _one(self, room, wanted):
        """A compiled function that draws one token: its id, and the tensors of the cache."""
        key = (1, room, wanted, "one")
        if key not in self._compiled:
            structure = self.model.start_cache(1, room - 1)

            def run(ids, index, uniform, *flat):
                cache = tree.pack_sequence_as(structure, list(flat))
                newest = ops.take(ids, index, axis=1)
                logits, cache = self._step()(newest, cache, index)
                logits = adjusted(logits, ids, index + 1, wanted.adjust)
                drawn = choose(logits, uniform, *wanted[:1], top_k=wanted.top_k, top_p=wanted.top_p)
                return [drawn, *tree.flatten(cache)]

            self._compiled[key] = compile_with_weights(run, self.model)
        return self._compiled[key]

    def _drawn(self, ids, length, wanted, seed):
        """Yields the new ids one by one, up to the end."""
        random, left = np.random.default_rng(seed), length
        room = self._room(len(ids) + length)
        run = self._one(room, wanted)
        while left:
            array, count = np.zeros((1, room), "int32"), _seen(len(ids), room)
            array[0, :count] = ids[-count:]
            uniforms = random.random((1, room), "float32")
            flat = tree.flatten(self.model.start_cache(1, room - 1))
            for index in range(room - 1):
                one = uniforms[:, index + 1]
                drawn, *flat = run(array, np.array(index, "int32"), one, *flat)
                if index + 1 >= count:
                    id = int(ops.convert_to_numpy(drawn)[0])
                    if id == self._end_id():
                        return
                    array[0, index + 1] = id
                    ids = [*ids, id]
                    yield id
                    left -= 1
                    if not left:
                        return

    def _pieces(self, ids, drawn, stop):
        """Yields text that no later token can change, and ends before a `stop`."""
        decode, begin = self.tokenizer.decode, len(self.tokenizer.decode(ids))
        text, said = decode(ids), begin
        held = max(map(len, stop), default=1) - 1  # characters that may begin a stop
        for id in drawn:
            ids = [*ids, id]
            text = decode(ids)
            cut = _until(text, stop, begin)
            if len(cut) < len(text):
                yield cut[said:]
                return
            # A character of several bytes is whole only with its last one.
            settled = len(text.rstrip("\ufffd")) - held
            if settled > said:
                yield text[said:settled]
                said = settled
        if text[said:]:
            yield text[said:]

    def _end_id(self):
        return None if self.tokenizer is None else self.tokenizer.end_id

    def _left(self, ids, begin, end):
        """How many more tokens may be drawn."""
        return 0 if self._end_id() in ids[begin:] else end - len(ids)

    def _until_end(self, ids, begin):
        """The ids up to the first end that was drawn."""
        return ids[: ids.index(self._end_id(), begin)] if self._end_id() in ids[begin:] else ids


def _are_texts(prompts):
    return any(isinstance(prompt, str) for prompt in prompts)


def _seen(count, room):
    """How many of the last tokens begin a pass: all, or half of the room if they fill it."""
    return count if count < room else room // 2


def _until(text, stop, begin):
    """The text up to the first of the strings `stop` behind its first `begin` characters."""
    ends = [place for each in stop if (place := text.find(each, begin)) >= 0]
    return text[: min(ends, default=len(text))]
