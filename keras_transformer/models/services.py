"""What Keras does for models, adapted to those of this package: training, quantisation, export."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_transformer.models import lora
from keras_transformer.models.layout import check_layouts
from keras_transformer.models.loss_per_label import LossPerLabel
from keras_transformer.ops.exporting import export_to_runtime
from keras_transformer.ops.memory import keep_freed_memory
from keras_transformer.ops.quantization import rebuilt


class Services(LossPerLabel, keras.Model):
    """A Keras model with a faster first step, and errors instead of broken files."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_layouts(self)

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
        """Quantises all matrices: projections, feed-forward networks, embeddings and logits.

        As `keras.Model.quantize`, in the modes `"int8"`, `"int4"` and `"float8"`. Norms and biases
        keep their weights, in `"float8"` embeddings too. A quantised model translates, saves and
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
        with warnings.catch_warnings():  # one for each norm and dropout
            warnings.filterwarnings("ignore", "Layer .* does not have a `quantize` method")
            super().quantize(mode, config, **options)

    def enable_lora(
        self, rank: int, targets: Sequence[str] = ("query", "value"), alpha: float | None = None
    ) -> None:
        """Freezes the model, and gives some of its layers an adapter that trains: LoRA.

        ```
        W' = W + alpha / rank * A B          A: [I, rank], B: [rank, O], at first zeros
        ```

        Hu et al. (2021), section 4.1. Compile the model afterwards. `save` and `export` write W'.

        Args:
            rank: Columns of A and rows of B.
            targets: Names of the layers: "query", "key", "value", "output" (attention), "inner",
                "outer" (feed-forward networks), "token", "position" (embeddings), or others of
                the model.
            alpha: Weight of the adapters; `rank` unless given.

        Raises:
            ValueError: For a name that no layer has, or if the model has adapters already or its
                optimizer has begun.

        Example:

        ```python
        model = kt.models.Transformer(100, num_layers=1, d_model=16, num_heads=2, d_ff=32)
        model.enable_lora(rank=4)
        sum(weight.shape.num_elements() for weight in model.trainable_weights)  # 768
        ```
        """
        lora.enable(self, rank, targets, alpha)

    def merge_lora(self) -> "Services":
        """Returns a copy without adapters, whose weights are W' (see `enable_lora`)."""
        return rebuilt(self)

    def save_adapter(self, filepath: str | os.PathLike) -> None:
        """Writes only the adapters of `enable_lora`: a small `.npz` file, replaced as a whole.

        Args:
            filepath: The file.

        Raises:
            ValueError: If the model has no adapter.
        """
        lora.save(self, filepath)

    def load_adapter(self, filepath: str | os.PathLike) -> None:
        """Puts the adapters of a file onto this model, which must be the one they adapt.

        Args:
            filepath: What `save_adapter` wrote. No code is run.

        Raises:
            ValueError: If the file is no adapter, or one for other sizes.
        """
        lora.load(self, filepath)

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Exports the model without the search, from ids to logits, as `keras.Model.export`.

        `"onnx"` and `"litert"` take inputs of any length on the TensorFlow backend, and compute in
        float32.

        Args:
            filepath, format, verbose, input_signature, **kwargs: As in `keras.Model.export`.

        Raises:
            ValueError: For `"onnx"` and `"litert"`: on JAX; if a package is missing, the lengths
                are open on PyTorch, or the format lacks an operation of the model. Then no file
                is written.
        """
        write = super().export
        if format in ("onnx", "litert"):
            write = functools.partial(export_to_runtime, self)
        write(filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs)
