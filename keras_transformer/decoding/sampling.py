"""Sampling from a language model: by temperature, from the top k or the top p, through a cache."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_transformer import arguments
from keras_transformer.decoding.next_token import IMPOSSIBLE
from keras_transformer.ops import Tensor
from keras_transformer.ops.compilation import compile_with_weights


class SampleState(NamedTuple):
    """What `sample` carries from step to step."""

    index: Tensor  # type: ignore[assignment]  # scalar: position of the newest ids
    ids: Tensor  # [B, length] prompt and what was drawn
    cache: Any  # nest of [B, ...]


def sample(
    step: Callable[[Tensor, Any, Tensor], tuple[Tensor, Any]],
    cache: Any,
    prompts: Tensor,
    prompt_lengths: Tensor,
    uniforms: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draws token after token from the model's own distribution.

    A pure function: the random numbers are an argument, `uniforms`, with one number per token.

    Args:
        step: `(ids [B], cache, index) -> (logits [B, V], cache)`.
        cache: A nest of tensors [B, ...].
        prompts: Integers [B, length], how each text begins.
        prompt_lengths: Integers [B], at least 1. `prompts` are ignored beyond these lengths.
        uniforms: Floats [B, length], uniformly distributed in [0, 1).
        temperature, top_k, top_p: See `choose`.

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


def choose(
    logits: Tensor,
    uniforms: Tensor,
    temperature: float = 1.0,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draws one id per row: logits [B, V] and numbers [B] in [0, 1) -> ids [B].

    Args:
        logits: Floats [B, V].
        uniforms: Floats [B]; the same number draws the same id.
        temperature: Divides the logits. Below 1 likely ids become likelier; 0 takes the likeliest.
        top_k: Draws only from the k likeliest ids.
        top_p: Draws only from the likeliest ids whose probabilities together reach p, as few as
            possible (Holtzman et al., 2020), after `temperature` and `top_k`.

    Example:

    ```python
    choose(np.array([[0.0, 3.0, 1.0]]), np.array([0.5]), top_k=2)  # [1]
    ```
    """
    size = logits.shape[-1]
    count = 1 if temperature == 0 else min(top_k or size, size)
    scores, ids = ops.top_k(ops.cast(logits, "float32"), count)
    ids = ops.cast(ids, "int32")
    if count == 1:
        return ids[:, 0]
    shares = ops.softmax(scores / temperature, axis=-1)  # highest first
    reached = ops.cumsum(shares, axis=-1)
    if top_p is not None:
        # An id is kept if those before it do not reach p, so the first always is.
        shares = ops.where(reached - shares < top_p, shares, 0.0)
        reached = ops.cumsum(shares, axis=-1)
    drawn = ops.cast(uniforms, "float32")[:, None] * reached[:, -1:]
    place = ops.sum(ops.cast(reached <= drawn, "int32"), axis=-1)
    last = ops.sum(ops.cast(shares > 0, "int32"), axis=-1) - 1  # rounding may lead past it
    return ops.take_along_axis(ids, ops.minimum(place, last)[:, None], axis=1)[:, 0]


class Sampler:
    """Continues texts with a `CausalLanguageModel`.

    It is compiled once per shape, and reads the weights anew at each call. A model sees at most as
    many tokens as it has learned positions. When they are full, the later half of the tokens moves
    to the front, and the text continues there.

    Args:
        model: A `CausalLanguageModel`.

    Example:

    ```python
    Sampler(model).generate([[5, 6, 3]], length=200, temperature=0.8, top_k=40, seed=1)
    ```
    """

    def __init__(self, model: Any) -> None:
        missing = [
            name for name in ("embedding", "start_cache", "decode") if not hasattr(model, name)
        ]
        if missing:
            raise ValueError(
                "A Sampler takes a CausalLanguageModel, or a model with its embedding, start_cache "
                f"and decode. Got a {type(model).__name__} without {', '.join(missing)}."
            )
        self.model = model
        self._compiled: dict[Any, Any] = {}

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        length: int,
        temperature: float = 1.0,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Returns each prompt, followed by `length` new ids.

        Args:
            prompts: Lists of ids, all of the same length, at least 1. Id 0 is padding and not
                allowed.
            length: How many ids are drawn for each prompt.
            temperature, top_k, top_p: See `choose`.
            seed: Seed of the random numbers. The same seed draws the same ids.

        Raises:
            ValueError: If prompts are empty or differ in length, or an option is out of range.
        """
        prompts = _checked_prompts(prompts, self.model.embedding.vocabulary_size)
        length = arguments.whole_number("length", length, least=0)
        seed = arguments.whole_number("seed", seed, least=0)
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "Prompts are one or more lists of ids of one length, at least 1; got lengths "
                f"{sorted(lengths)}. Make one call for each length."
            )
        temperature = arguments.real_number("temperature", temperature)
        if top_k is not None:
            advice = "None draws from all tokens."
            top_k = arguments.whole_number("top_k", top_k, advice=advice)
        if top_p is not None and not 0 < arguments.real_number("top_p", top_p) <= 1:
            raise ValueError(f"top_p is above 0 and at most 1, got {top_p}.")
        texts = [list(prompt) for prompt in prompts]
        wanted = len(texts[0]) + length
        # The last id is drawn but never read, so it needs no position.
        room = min((self.model.embedding.max_length or wanted) + 1, wanted)
        random = np.random.default_rng(seed)
        key = (len(texts), room, temperature, top_k, top_p)
        if key not in self._compiled:

            def run(prompts, prompt_lengths, uniforms):
                def step(ids, cache, index):
                    logits, cache = self.model.decode(ids[:, None], cache, index)
                    padding = ops.arange(logits.shape[-1]) == 0  # never drawn
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
