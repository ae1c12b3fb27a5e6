"""One wiring: training, a call of the model's own methods and cached decoding give the same."""

from typing import Any

import numpy as np
from keras import ops, tree

from keras_transformer.ops.compilation import compile_with_weights
from keras_transformer.testing import running

PROTOCOL = ("encode", "start_cache", "decode")


def assert_cached_equals_uncached(
    model: Any,
    inputs: dict[str, Any],
    *,
    chunk: int = 1,
    rewinds: bool = True,
    pad_id: int = 0,
    jit: bool = False,
    tolerance: float | None = None,
) -> None:
    """Requires that decoding step by step with a cache gives the logits of the whole target.

    ```
    memory, memory_mask = model.encode(source_ids)
    cache = model.start_cache(memory, length=L)
    logits, cache = model.decode(target_ids[:, t : t + 1], None, memory_mask, cache, t)
    logits == model({"source_ids": source_ids, "target_ids": target_ids})[:, t : t + 1]
    ```

    A model of your own is tested through the same three methods. Its cache is any nest of tensors,
    with room for more tokens than the target has. The target is decoded twice: from a new cache,
    and from one that is full of other tokens. What the cache holds at and behind `index` must not
    be read.

    Args:
        model: A model with `encode`, `start_cache` and `decode` as above. `memory` is passed only
            to `start_cache`.
        inputs: `{"source_ids": [B, S], "target_ids": [B, T]}`.
        chunk: How many tokens a step decodes. The last step may have fewer.
        rewinds: Whether a used cache can start again at index 0. False for recurrent models, whose
            cache is a state.
        pad_id: The id of padding, whose positions are not compared.
        jit: Whether XLA compiles the step, on backends that have it. Its index is then a tensor.
        tolerance: As in `assert_padding_invariant`.

    Raises:
        AssertionError: If the logits differ; with the first difference.
        ValueError: If the model lacks one of the methods.

    Example:

    ```python
    kt.testing.assert_cached_equals_uncached(model, kt.testing.random_inputs(vocabulary_size=100))
    ```
    """
    missing = [method for method in PROTOCOL if not hasattr(model, method)]
    if missing:
        raise ValueError(
            f"Cached decoding needs the methods {', '.join(PROTOCOL)}; {type(model).__name__} has "
            f"no {', '.join(missing)}. See assert_cached_equals_uncached for what they do."
        )
    run = running.Runner(model, inputs, tolerance=tolerance)
    target_ids = run.arrays["target_ids"]
    length = target_ids.shape[1]
    memory, memory_mask = model.encode(ops.convert_to_tensor(run.arrays["source_ids"]))
    first = model.start_cache(memory, length + 2)

    def step(ids, index, *leaves):
        cache = tree.pack_sequence_as(first, leaves)
        logits, cache = model.decode(ids, None, memory_mask, cache, index)
        return [ops.cast(logits, "float32"), *tree.flatten(cache)]

    compiled = compile_with_weights(step, model) if jit else step

    def decode(ids, leaves):
        outputs = []
        for t in range(0, length, chunk):
            # A compiled step takes the index as a tensor, and so serves every position.
            index = np.array(t, "int32") if jit else t
            window = ids[:, t : t + chunk]
            logits, *leaves = compiled(
                window if jit else ops.convert_to_tensor(window), index, *leaves
            )
            outputs.append(ops.convert_to_numpy(logits))
        return np.concatenate(outputs, axis=1), leaves

    def require_uncached(logits, how, causes):
        real = run.real_positions("target_ids", pad_id)
        what = f"Cached decoding is not the uncached{how}"
        run.require_same(logits, real=real, what=what, causes=causes)

    leaves = tree.flatten(first)
    logits, _ = decode(target_ids, leaves)
    require_uncached(
        logits,
        ": step by step the model gives other logits than for the whole target.",
        "at position 0: another mask or a source that the cache forgets, or positions of "
        "the cache that were never written and are attended to; later: an index that is not passed "
        "on (the position always 0), keys written to the wrong place, no mask behind the index",
    )
    if rewinds:
        _, used = decode(running.other_values(target_ids), leaves)
        again, _ = decode(target_ids, used)
        require_uncached(
            again,
            " once the cache has been used: what an earlier target left in it is read.",
            "no mask behind the index: positions that were not yet written are attended to; "
            "keys added to what stands in the cache and not written over it",
        )


def assert_wired(model: Any, inputs: Any, *, tolerance: float | None = None) -> None:
    """Requires that the model, as `fit` calls it, gives what its own methods give.

    ```
    model({"source_ids": source_ids, "target_ids": target_ids})
        == model.decode(target_ids, *model.encode(source_ids))
    ```

    Args:
        model: A model with `encode` and `decode` as above. For other inputs, a model with a method
            `wire` of its inputs, like those of `kt.models`.
        inputs, tolerance: As in `assert_padding_invariant`.

    Raises:
        AssertionError: If an override is not used; with the first difference.

    Example:

    ```python
    kt.testing.assert_wired(model, kt.testing.random_inputs(vocabulary_size=100))
    ```
    """
    run = running.Runner(model, inputs, tolerance=tolerance)
    tensors = {name: ops.convert_to_tensor(array) for name, array in run.arrays.items()}
    if "source_ids" in tensors:
        actual = model.decode(tensors["target_ids"], *model.encode(tensors["source_ids"]))
    else:
        actual = model.wire(run.pack(tensors))
    run.require_same(
        ops.convert_to_numpy(ops.cast(actual, "float32")),
        what="The model is not wired by its own methods: `fit` would train another model than the "
        "one that decodes.",
        causes="a graph that calls the methods of a base class, not those of the object (a "
        "subclass overrides them in vain); a method that was replaced after the model was made",
    )
