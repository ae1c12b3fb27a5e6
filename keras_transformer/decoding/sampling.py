"""Sampling from a language model: by temperature, from the top k or the top p, through a cache."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_transformer import arguments
from keras_transformer.decoding.search import IMPOSSIBLE
from keras_transformer.ops.compilation import compile_with_weights


class SampleState(NamedTuple):
    """What `sample` carries from step to step."""

    index: Any  # type: ignore[assignment]  # scalar: position of the newest ids
    ids: object  # [B, length] prompt and what was drawn
    cache: object  # nest of [B, ...]


def sample(
    step, cache, prompts, prompt_lengths, uniforms, *, temperature=1.0, top_k=None, top_p=None
):
    """Draws token after token from the model's own distribution.

    A pure function: what is random comes in as `uniforms`, one number a token.

    Args:
        step: `(ids [B], cache, index) -> (logits [B, V], cache)`.
        cache: nest of tensors [B, ...].
        prompts: [B, length] integers, how each text begins.
        prompt_lengths: [B] integers, at least 1; what stands in `prompts` beyond is ignored.
        uniforms: [B, length] floats, even in [0, 1).
        temperature, top_k, top_p: see `choose`.

    Returns:
        ids [B, length], each beginning with its prompt.

    Example:

    ```python
    ids = sample(step, cache, prompts, prompt_lengths, np.random.uniform(size=(2, 60)), top_k=40)
    ```
    """
    length = prompts.shape[1]

    def unfinished(*state):
        return SampleState(*state).index < length - 1

    def advance(*state):
        state = SampleState(*state)
        newest = ops.take(state.ids, state.index, axis=1)  # [B]
        logits, cache = step(newest, state.cache, state.index)
        following = state.index + 1
        drawn = choose(
            logits, ops.take(uniforms, following, axis=1), temperature, top_k=top_k, top_p=top_p
        )
        places = ops.arange(length, dtype="int32")[None]  # [1, length]
        writes = ops.logical_and(
            ops.equal(places, following), places >= ops.cast(prompt_lengths, "int32")[:, None]
        )
        return SampleState(
            index=following, ids=ops.where(writes, drawn[:, None], state.ids), cache=cache
        )

    start = SampleState(ops.convert_to_tensor(0, "int32"), ops.cast(prompts, "int32"), cache)
    return SampleState(*ops.while_loop(unfinished, advance, start)).ids


def choose(logits, uniforms, temperature=1.0, *, top_k=None, top_p=None):
    """One id of each row of logits [B, V], by one number in [0, 1) a row: [B] -> [B].

    Args:
        temperature: divides the logits: below 1 the likely becomes likelier; 0 takes the highest.
        top_k: only the k highest are drawn from.
        top_p: only the fewest highest whose probabilities reach p together (Holtzman et al.,
            2020), at that temperature and after `top_k`.

    Example:

    ```python
    choose(np.array([[0.0, 3.0, 1.0]]), np.array([0.5]), top_k=2)  # [1]
    ```
    """
    size = logits.shape[-1]
    scores, ids = ops.top_k(
        ops.cast(logits, "float32"), 1 if temperature == 0 else min(top_k or size, size)
    )
    ids = ops.cast(ids, "int32")
    if temperature == 0:
        return ids[:, 0]
    shares = ops.softmax(scores / temperature, axis=-1)  # highest first
    reached = ops.cumsum(shares, axis=-1)
    if top_p is not None:
        # Kept is what begins below p, so that the first always is.
        shares = ops.where(reached - shares < top_p, shares, 0.0)
        reached = ops.cumsum(shares, axis=-1)
    drawn = ops.cast(uniforms, "float32")[:, None] * reached[:, -1:]
    place = ops.sum(ops.cast(reached <= drawn, "int32"), axis=-1)
    last = ops.sum(ops.cast(shares > 0, "int32"), axis=-1) - 1  # rounding may lead beyond
    return ops.take_along_axis(ids, ops.minimum(place, last)[:, None], axis=1)[:, 0]


class Sampler:
    """Goes on writing texts with a `CausalLanguageModel`.

    Compiled once for a shape; the weights are read anew at each call. A model of learned positions
    sees at most as many tokens as it has of those: when these are full, it goes on from the later
    half of them.

    Args:
        model: a `CausalLanguageModel`.

    Example:

    ```python
    Sampler(model).generate([[5, 6, 3]], length=200, temperature=0.8, top_k=40, seed=1)
    ```
    """

    def __init__(self, model):
        missing = [
            name for name in ("embedding", "start_cache", "decode") if not hasattr(model, name)
        ]
        if missing:
            raise ValueError(
                "A Sampler takes a CausalLanguageModel, or a model with its embedding, start_cache "
                f"and decode. Got a {type(model).__name__} without {', '.join(missing)}."
            )
        self.model = model
        self._compiled = {}

    def generate(self, prompts, length, temperature=1.0, *, top_k=None, top_p=None, seed=0):
        """Each prompt, followed by `length` new ids.

        Args:
            prompts: lists of ids, of one length, at least one each; 0 is padding and not allowed.
            length: how many ids are drawn for each.
            temperature, top_k, top_p: see `choose`.
            seed: of what is drawn; the same one draws the same.

        Returns:
            A list of lists of ids, the prompts included.

        Raises:
            ValueError: for prompts that are empty or of several lengths, or options out of range.
        """
        prompts = _checked_prompts(prompts, self.model.embedding.vocabulary_size)
        length = arguments.whole_number("length", length, least=0)
        seed = arguments.whole_number("seed", seed, least=0)
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "Prompts are one or more lists of ids of one length, at least 1; got lengths "
                f"{sorted(lengths)}. Generate those of other lengths by themselves."
            )
        temperature = arguments.real_number("temperature", temperature)
        if top_k is not None:
            advice = "None draws from all tokens."
            top_k = arguments.whole_number("top_k", top_k, advice=advice)
        if top_p is not None and not 0 < arguments.real_number("top_p", top_p) <= 1:
            raise ValueError(f"top_p is above 0 and at most 1, got {top_p}.")
        texts = [list(prompt) for prompt in prompts]
        wanted = len(texts[0]) + length
        # The last id is drawn and not read: it needs no position.
        room = min((self.model.embedding.max_length or wanted) + 1, wanted)
        random = np.random.default_rng(seed)
        key = (len(texts), room, temperature, top_k, top_p)
        if key not in self._compiled:

            def run(prompts, prompt_lengths, uniforms):
                def step(ids, cache, index):
                    logits, cache = self.model.decode(ids[:, None], cache, index)
                    padding = ops.arange(logits.shape[-1]) == 0  # is never drawn
                    return ops.where(padding, IMPOSSIBLE, logits[:, 0]), cache

                cache = self.model.start_cache(len(texts), room - 1)
                options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
                return sample(step, cache, prompts, prompt_lengths, uniforms, **options)

            self._compiled[key] = compile_with_weights(run, self.model)
        while len(texts[0]) < wanted:
            seen = len(texts[0]) if len(texts[0]) < room else room // 2
            begins = np.zeros((len(texts), room), "int32")
            begins[:, :seen] = [text[-seen:] for text in texts]
            counts = np.full((len(texts),), seen, "int32")
            uniforms = random.random((len(texts), room), "float32")
            found = ops.convert_to_numpy(self._compiled[key](begins, counts, uniforms))
            for text, row in zip(texts, found.tolist(), strict=True):
                text += row[seen : seen + wanted - len(text)]
        return texts


def _checked_prompts(prompts, vocabulary_size):
    """The prompts as lists of integers, each of them an id that is not padding."""
    if isinstance(prompts, str) or any(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(
            f"Prompts are lists of ids, got text: {prompts!r}. Pass tokenizer.encode([text])."
        )
    checked = []
    for prompt in prompts:
        ids = [arguments.whole_number("An id of a prompt", id) for id in prompt]
        if ids and max(ids) >= vocabulary_size:
            raise ValueError(
                f"An id of a prompt is below the vocabulary of {vocabulary_size}, got {max(ids)}. "
                "Is this the tokenizer that the model was trained with?"
            )
        checked.append(ids)
    return checked
