"""What Keras does for models, adapted to those of this package: training, quantisation, export."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_transformer.models.loss_per_label import LossPerLabel
from keras_transformer.ops.memory import keep_freed_memory


class Services(LossPerLabel, keras.Model):
    """A Keras model with a faster first step, and errors instead of broken files."""

    def make_train_function(self, force: bool = False) -> Callable | None:
        """Makes the training step, for Keras. The optimizer gets its variables before.

        Otherwise TensorFlow would make them while it traces the step, and then trace it again,
        which is half of the first step's time. The process also keeps the memory that steps free.
        """
        keep_freed_memory()
        if not self.optimizer.built:
            strategy = getattr(self, "distribute_strategy", None)  # only TensorFlow has one
            with contextlib.nullcontext() if strategy is None else strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def quantize(self, mode: str | None = None, config: Any = None, **options: Any) -> None:
        """Quantises the `Dense` layers: feed-forward networks, untied logits and classifiers.

        As `keras.Model.quantize`, in the modes `"int8"`, `"int4"` and `"float8"`. Attention,
        embeddings and tied logits keep their weights. A quantised model translates, saves and
        loads.

        Args:
            mode, config, **options: As in `keras.Model.quantize`.

        Raises:
            ValueError: For `"gptq"` and `"awq"` without a `quantization_layer_structure`; then
                nothing is changed.
        """
        structure = getattr(config, "quantization_layer_structure", None)
        if mode in ("gptq", "awq") and structure is None:
            raise ValueError(
                f"quantize({mode!r}) needs to know the blocks of a {type(self).__name__}, which "
                "has no such list. Pass a config with quantization_layer_structure, or quantise by "
                "'int8', 'int4' or 'float8'."
            )
        super().quantize(mode, config, **options)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Exports the model without the search, from ids to logits, as `keras.Model.export`.

        Args:
            filepath, format, verbose, input_signature, **kwargs: As in `keras.Model.export`.

        Raises:
            ValueError: For `"onnx"` and `"litert"` without an `input_signature` of fixed lengths:
                LiteRT would fail, and the ONNX file could not be loaded.
        """
        if format in ("onnx", "litert"):
            tensors = keras.tree.flatten(input_signature)
            if any(tensor is None or None in tensor.shape for tensor in tensors):
                raise ValueError(
                    f"format={format!r} takes fixed lengths, got input_signature="
                    f"{input_signature!r}. Pass one keras.InputSpec(shape=(rows, length), "
                    'dtype="int32") for each input, and pad the inputs to these shapes.'
                )
        super().export(
            filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs
        )
