"""Exports of models to ONNX and LiteRT, by Keras and the converters that it calls."""

import contextlib
import contextvars
import functools
import importlib
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_transformer.ops.quantization import rebuilt

# Whether a graph is being traced within `plain_graph`.
EXPORTING = contextvars.ContextVar("exporting", default=False)


@contextlib.contextmanager
def plain_graph() -> Iterator[None]:
    """Within it attention is traced by its formula, which every converter knows.

    The converters fail at attention in blocks: a condition with a loop in a function that is not
    inlined. An exported model needs no gradient, which is what the blocks save memory for.
    """
    token = EXPORTING.set(True)
    try:
        yield
    finally:
        EXPORTING.reset(token)


def export_to_runtime(
    model: keras.Model,
    filepath: Any,
    format: str,
    verbose: bool | None = None,
    input_signature: Any = None,
    **options: Any,
) -> None:
    """Exports a functional model by `keras.Model.export`, so that a runtime can load the file.

    The file computes in float32, because no converter writes half precision that loads everywhere.

    Args:
        model: The model, whose inputs may have open lengths.
        format: `"onnx"` or `"litert"`.
        filepath, verbose, input_signature, **options: As in `keras.Model.export`.

    Raises:
        ValueError: On JAX; if a package is missing, the lengths are open on PyTorch, or the format
            lacks an operation of the model. Then no file is left.
    """
    check_exportable(model, format)
    backend = keras.backend.backend()
    if input_signature is None:
        # Keras refuses to write ONNX of a model that was never called, unless it is given this.
        input_signature = [keras.tree.map_structure(_spec, model.input)]
    if backend == "torch":
        _require_fixed_lengths(format, input_signature)
    write = functools.partial(
        keras.Model.export,
        in_float32(model),
        filepath,
        format=format,
        verbose=verbose,
        input_signature=input_signature,
        **options,
    )
    with plain_graph():
        if format == "onnx":
            _require_onnx()
            with warnings.catch_warnings():
                # Keras' own, on every export.
                warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
                write()
            _check_onnx(filepath)
        elif backend == "torch" or "target_spec" in options:
            write()
        else:
            with _litert_operations() as target_spec:
                write(target_spec=target_spec)


def check_exportable(model: keras.Model, format: str) -> None:
    """Refuses a model that cannot be written in a format.

    Raises:
        ValueError: On JAX, and for a quantised model in LiteRT.
    """
    if keras.backend.backend() == "jax":
        raise ValueError(
            f"format={format!r} is written on the tensorflow backend, this is jax: its converter "
            "takes no open lengths. Save the model, set KERAS_BACKEND=tensorflow, load it and "
            "export it."
        )
    if format == "litert" and any(layer.quantization_mode for layer in model._flatten_layers()):
        raise ValueError(
            "LiteRT cannot multiply the integers of a model that Keras has quantised. Export the "
            "float model, with optimizations=[tf.lite.Optimize.DEFAULT] for weights of 8 bits."
        )


def in_float32(model: keras.Model) -> keras.Model:
    """Returns the model, or a copy that computes in float32 if it computes in half precision."""
    layers = model._flatten_layers()
    if all(layer.compute_dtype == "float32" for layer in layers):
        return model
    if any(layer.quantization_mode for layer in layers):
        raise ValueError(
            "A model that is quantised and computes in half precision cannot be exported to ONNX. "
            'Build it with dtype="float32", load its weights, quantise and export that.'
        )
    copy = type(model).from_config({**model.get_config(), "dtype": "float32"})
    copy.set_weights(rebuilt(model).get_weights())  # adapters of LoRA are merged
    return copy


def _spec(symbol):
    return keras.InputSpec(shape=symbol.shape, dtype=symbol.dtype, name=symbol.name)


def _require_fixed_lengths(format, input_signature):
    if any(None in tensor.shape for tensor in keras.tree.flatten(input_signature)):
        raise ValueError(
            f"On the torch backend format={format!r} takes fixed lengths, got input_signature="
            f"{input_signature!r}. Pass one keras.InputSpec(shape=(rows, length), dtype='int32') "
            "for each input, and pad the inputs to these shapes; or set KERAS_BACKEND=tensorflow."
        )


def _require_onnx():
    on_tensorflow = keras.backend.backend() == "tensorflow"
    for name in ("onnx", "tf2onnx") if on_tensorflow else ("onnx",):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"Exporting to ONNX needs {name}, which is not installed: pip install "
                "keras-transformer-kit[onnx]"
            ) from error
    if on_tensorflow:
        _teach_tf2onnx()


@functools.cache
def _teach_tf2onnx():
    """Teaches tf2onnx the operation of exact GELU: `erfc(x) = 1 - erf(x)`."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph, node, **_):
            [x], [result] = node.input, node.output
            graph.remove_node(node.name)
            one = graph.make_const(f"{node.name}_one", np.ones((), "float32"))
            erf = graph.make_node("Erf", [x])
            graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[result])


def _check_onnx(path):
    """Removes an ONNX file that no runtime can load, which tf2onnx writes without an error."""
    import onnx

    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        os.remove(path)
        raise ValueError(
            f"ONNX lacks an operation of this model ({error}). Replace the layer or activation "
            "that computes it, or export a SavedModel."
        ) from error


@contextlib.contextmanager
def _litert_operations():
    """Yields the `target_spec` of a converter that takes only LiteRT's own operations.

    Keras also takes those of TensorFlow, which the interpreter of ai-edge-litert does not have.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError  # no public name for it

    try:
        yield {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    except ConverterError as error:
        lacking = re.findall(r"(?:TF Select|Custom) ops: (.*)", str(error)) or [str(error)[:200]]
        raise ValueError(
            f"LiteRT lacks operations of this model: {', '.join(lacking)}. Replace the layer or "
            "activation that computes them, or export a SavedModel."
        ) from error
