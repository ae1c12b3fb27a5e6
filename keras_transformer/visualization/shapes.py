"""Which layer makes a tensor of which shape: recorded while a model runs."""

import contextlib
import itertools
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
    path: str  # the names of the layers around it and its own, with slashes; no two are the same
    inputs: tuple  # paths of the calls whose outputs it was given
    inner: bool  # whether it called layers itself


@contextlib.contextmanager
def recorded_calls():
    """Yields a list that gets a `Call` of every layer that is called, in the order of the calls."""
    calls, around, paths = [], [], set()
    makers = {}  # of each tensor, by identity; the tensor is kept, or its identity would be reused
    call = keras.layers.Layer.__call__

    def recording(layer, *args, **kwargs):
        place = len(calls)
        calls.append(None)  # before the calls inside
        name = "/".join([*around[-1:], layer.name])
        path = next(p for p in _numbered(name) if p not in paths)
        paths.add(path)
        given = (makers.get(id(each)) for each in tree.flatten((args, kwargs)))
        inputs = tuple(dict.fromkeys(maker for maker, _ in filter(None, given)))
        around.append(path)
        try:
            outputs = call(layer, *args, **kwargs)
        finally:
            around.pop()
        tensors = [each for each in tree.flatten(outputs) if each is not None]
        for each in tensors:
            makers.setdefault(id(each), (path, each))  # the innermost was first
        kind, inner = type(layer), len(calls) > place + 1
        shape = tuple(tensors[0].shape)
        depth = len(around)
        calls[place] = Call(
            depth, kind.__name__, layer.name, kind.__module__, shape, path, inputs, inner
        )
        return outputs

    keras.layers.Layer.__call__ = recording
    try:
        yield calls
    finally:
        keras.layers.Layer.__call__ = call


def _numbered(name):
    yield name
    for number in itertools.count(1):
        yield f"{name}_{number}"


def run_once(model, rows, source_length, target_length):
    """The calls of a `Transformer` that reads sentences of these lengths."""
    with recorded_calls() as calls:
        memory, mask = model.encode(np.ones((rows, source_length), "int32"))
        model.decode(np.ones((rows, target_length), "int32"), memory, mask)
    return calls


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
    lettered = run_once(model, batch, source, target)
    shapes = run_once(model, 1, source_length, target_length)
    return [
        (call, [letters.get(size, size) for size in other.shape])
        for call, other in zip(shapes, lettered, strict=True)
        if call.layer != "Dropout"
    ]
