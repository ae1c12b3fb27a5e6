"""What training sees is what decoding computes: one wiring."""

from keras import ops

from keras_transformer.testing import running


def assert_wired(model, inputs, *, tolerance=None):
    """The model, as `fit` calls it, gives what its own methods give: every override is used.

    ```
    model({"source_ids": source_ids, "target_ids": target_ids})
        == model.decode(target_ids, *model.encode(source_ids))
    ```

    Args:
        model: A model with `encode` and `decode` as above; or, for other inputs, with a method
            `wire` of its inputs, as those of `kt.models`.
        inputs: Example inputs: an array, or a list or a dictionary of them.
        tolerance: The largest difference that is none; by default what rounding in the model's
            compute dtype explains.

    Raises:
        AssertionError: With the first position that differs, and what usually causes it.

    Example:

    ```python
    ids = {"source_ids": np.array([[5, 6, 3]]), "target_ids": np.array([[2, 7, 4, 9]])}
    kt.testing.assert_wired(model, ids)
    ```
    """
    _, arrays, expected = running.runner(model, inputs)
    _, pack = running.named(inputs)
    tensors = {name: ops.convert_to_tensor(array) for name, array in arrays.items()}
    if "source_ids" in tensors:
        actual = model.decode(tensors["target_ids"], *model.encode(tensors["source_ids"]))
    else:
        actual = model.wire(pack(tensors))
    running.require_same(
        ops.convert_to_numpy(ops.cast(actual, "float32")),
        expected,
        running.rounding(model, expected) if tolerance is None else tolerance,
        what="The model is not wired by its own methods: `fit` would train another model than the "
        "one that decodes.",
        causes="a graph that calls the methods of a base class, not those of the object (a "
        "subclass overrides them in vain); a method that was replaced after the model was made",
    )
