"""Sampling from a language model: by temperature, from the top k or the top p, through a cache."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_transformer.decoding.next_token import IMPOSSIBLE, Adjust
from keras_transformer.ops import Tensor
from keras_transformer.ops.draw import draw, nucleus
from keras_transformer.ops.top_k import highest
from keras_transformer.ops.top_k import top_k as highest_k


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
    adjust: Sequence[Adjust] = (),
    end_id: int | None = None,
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
        adjust: Functions that change the log-probabilities; see next_token.py.
        end_id: Drawing ends as soon as each text has drawn this id, or its prompt has no room left.

    Returns:
        ids [B, length], each beginning with its prompt.

    Example:

    ```python
    ids = sample(step, cache, prompts, prompt_lengths, np.random.uniform(size=(2, 60)), top_k=40)
    ```
    """
    length = prompts.shape[1]
    places = ops.arange(length, dtype="int32")[None]  # [1, length]
    new = places >= ops.cast(prompt_lengths, "int32")[:, None]  # [B, length]

    def unfinished(*state):
        state = SampleState(*state)
        room = state.index < length - 1
        if end_id is None:
            return room
        ends = ops.logical_and(new, ops.equal(state.ids, end_id))
        done = ops.logical_or(ops.any(ends, axis=-1), ops.logical_not(ops.any(new, axis=-1)))
        return ops.logical_and(room, ops.logical_not(ops.all(done)))

    def advance(*state):
        state = SampleState(*state)
        newest = ops.take(state.ids, state.index, axis=1)  # [B]
        logits, cache = step(newest, state.cache, state.index)
        following = state.index + 1
        numbers = ops.take(uniforms, following, axis=1)
        logits = adjusted(logits, state.ids, following, adjust)
        drawn = choose(logits, numbers, temperature, top_k=top_k, top_p=top_p)
        writes = ops.logical_and(ops.equal(places, following), new)
        return SampleState(
            index=following, ids=ops.where(writes, drawn[:, None], state.ids), cache=cache
        )

    start = SampleState(ops.convert_to_tensor(0, "int32"), ops.cast(prompts, "int32"), cache)
    return SampleState(*ops.while_loop(unfinished, advance, start)).ids


def adjusted(logits: Tensor, ids: Tensor, index: Tensor, adjust: Sequence[Adjust]) -> Tensor:
    """Logits [B, V] after the first `index` of `ids` [B, length], changed by `adjust`."""
    if not adjust:
        return logits
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    for each in adjust:
        log_probs = each(log_probs, ids, index, {})
    return log_probs


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

    Ids that are equally likely are kept together, so more than k may be.

    Example:

    ```python
    choose(np.array([[0.0, 3.0, 1.0]]), np.array([0.5]), top_k=2)  # [1]
    ```
    """
    logits = ops.cast(logits, "float32")
    if temperature == 0:
        return highest(logits)[1]
    if top_k is not None and top_k < logits.shape[-1]:
        least = ops.min(highest_k(logits, top_k)[0], axis=-1, keepdims=True)
        logits = ops.where(logits >= least, logits, IMPOSSIBLE)
    shares = ops.softmax(logits / temperature, axis=-1)
    if top_p is not None:
        shares = ops.where(nucleus(shares, top_p), shares, 0.0)
    return draw(shares, ops.cast(uniforms, "float32"))
