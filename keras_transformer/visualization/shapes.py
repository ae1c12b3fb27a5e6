"""Which layer makes a tensor of which shape: recorded while a model runs."""

import contextlib
import functools
import itertools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

_recording = threading.RLock()  # two recordings of one layer would restore each other's `call`


class Call(NamedTuple):
    """One call of one layer."""

    depth: int  # 0 for a layer that the model itself calls
    layer: str  # the name of its class
    name: str
    module: str  # where the class is defined
    shape: tuple  # of its first output
    path: str  # the names of the layers around it and its own, with slashes; unique
    inputs: tuple  # paths of the calls whose outputs it was given
    inner: bool  # whether it called layers itself


@contextlib.contextmanager
def recorded_calls(model: keras.Model) -> Iterator[list[Call]]:
    """Yields a list that gets a `Call` of every layer of `model`, in the order of the calls.

    Only this thread is recorded. Each layer gets a `call` of its own inside the block, which other
    threads pass through; no class is changed.
    """
    calls: list[Any] = []
    around: list[str] = []
    paths: set[str] = set()
    # {id of a tensor: (path of its maker, the tensor)}. A tensor that is freed would lose its id.
    makers: dict[int, tuple[str, Any]] = {}
    thread = threading.get_ident()

    def recording(layer, call, *args, **kwargs):
        if threading.get_ident() != thread:
            return call(*args, **kwargs)
        place = len(calls)
        calls.append(None)  # before the calls inside
        name = "/".join([*around[-1:], layer.name])
        path = next(p for p in _numbered(name) if p not in paths)
        paths.add(path)
        given = (makers.get(id(each)) for each in tree.flatten((args, kwargs)))
        inputs = tuple(dict.fromkeys(maker for maker, _ in filter(None, given)))
        around.append(path)
        try:
            outputs = call(*args, **kwargs)
        finally:
            around.pop()
        tensors = [each for each in tree.flatten(outputs) if each is not None]
        for each in tensors:
            makers.setdefault(id(each), (path, each))  # the innermost layer comes first
        kind, inner = type(layer), len(calls) > place + 1
        shape = tuple(tensors[0].shape)
        depth = len(around)
        calls[place] = Call(
            depth, kind.__name__, layer.name, kind.__module__, shape, path, inputs, inner
        )
        return outputs

    with contextlib.ExitStack() as stack:
        stack.enter_context(_recording)
        for layer in model._flatten_layers(include_self=False):
            # Keras calls one of these two. An attribute in __dict__ hides the method of the class.
            method = "call" if layer.quantization_mode is None else "quantized_call"
            attributes, original = vars(layer), getattr(layer, method)
            restore = attributes.__setitem__ if method in attributes else attributes.pop
            stack.callback(restore, method, original)
            recorder = functools.partial(recording, layer, original)
            attributes[method] = functools.wraps(original)(recorder)
        yield calls


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(1):
        yield f"{name}_{number}"


def run_once(model: Any, rows: int, source_length: int, target_length: int) -> list[Call]:
    """Runs a `Transformer` on sentences of these lengths and returns the calls of its layers."""
    with recorded_calls(model) as calls:
        memory, mask = model.encode(np.ones((rows, source_length), "int32"))
        model.decode(np.ones((rows, target_length), "int32"), memory, mask)
    return calls


def tensor_shapes(
    model: Any, source_length: int, target_length: int
) -> list[tuple[Call, list[str | int]]]:
    """Returns every layer's output shape for one pair of sentences, as numbers and as letters.

    The letters are measured: the model runs once more, with a batch size and lengths that differ
    from all its other sizes. Dropout is left out, because it does nothing at inference.

    Args:
        model: A `Transformer`.
        source_length, target_length: The numbers of tokens of the pair, S and T.

    Returns:
        A list of `(Call, letters)`. The call has the shape in numbers. The letters are a list such
        as `["B", "S", "D"]`, in which a number without a letter stays a number.
    """
    layer = model.encoder.layers[0]
    letters: dict[int, str] = {}  # of equal sizes the first wins: if d_ff is d_model, both are D
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
