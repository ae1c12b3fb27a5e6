"""Which layer makes a tensor of which shape: recorded while a model runs."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np
from keras import tree


class Call(NamedTuple):
    """One call of one layer."""

    depth: int  # 0 for a layer that the model itself calls
    layer: str  # its class
    name: str
    module: str  # the file it stands in, as a module
    shape: tuple  # of its first output


@contextlib.contextmanager
def recorded_calls():
    """Yields a list that gets a `Call` of every layer that is called, in the order of the calls."""
    calls, depth = [], 0
    call = keras.layers.Layer.__call__

    def recording(layer, *args, **kwargs):
        nonlocal depth
        place = len(calls)
        calls.append(None)  # before the calls inside
        depth += 1
        try:
            outputs = call(layer, *args, **kwargs)
        finally:
            depth -= 1
        shape = tuple(tree.flatten(outputs)[0].shape)
        kind = type(layer)
        calls[place] = Call(depth, kind.__name__, layer.name, kind.__module__, shape)
        return outputs

    keras.layers.Layer.__call__ = recording
    try:
        yield calls
    finally:
        keras.layers.Layer.__call__ = call


def tensor_shapes(model, source_length, target_length):
    """Every layer's output shape for one pair of sentences, as numbers and as letters.

    The letters are found, not assumed: the model runs once with a batch and with lengths that are
    no other size of it, so that no two letters stand for one number. Dropout is left out, as it
    does nothing here.

    Args:
        model: a `Transformer`.
        source_length, target_length: tokens of the pair, S and T.

    Returns:
        A list of `(Call, letters)`, the call's shape in numbers, the letters a list such as
        `["B", "S", "D"]`; a number that has no letter stays one.
    """
    layer = model.encoder.layers[0]
    # The first of equal sizes wins: where d_ff is d_model both are D.
    letters = {}
    for size, letter in (
        (layer.d_model, "D"),
        (layer.d_ff, "F"),
        (model.target_embedding.vocabulary_size, "V"),
    ):
        letters.setdefault(size, letter)
    free = (size for size in range(3, 1000) if size not in letters)
    batch, source, target = (next(free) for _ in range(3))
    letters |= {batch: "B", source: "S", target: "T"}
    letters |= {batch * source: "B S", batch * target: "B T"}

    def run(rows, source_length, target_length):
        with recorded_calls() as calls:
            memory, mask = model.encode(np.ones((rows, source_length), "int32"))
            model.decode(np.ones((rows, target_length), "int32"), memory, mask)
        return calls

    lettered = run(batch, source, target)
    shapes = run(1, source_length, target_length)
    return [
        (call, [letters.get(size, size) for size in other.shape])
        for call, other in zip(shapes, lettered, strict=True)
        if call.layer != "Dropout"
    ]
