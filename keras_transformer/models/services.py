"""What Keras does for models, adapted to those of this package: training, quantisation, export."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_transformer.models import lora, r_drop
from keras_transformer.models.layout import check_layouts
from keras_transformer.models.loss_per_label import LossPerLabel
from keras_transformer.ops import Tensor
from keras_transformer.ops.exporting import export_to_runtime
from keras_transformer.ops.memory import keep_freed_memory
from keras_transformer.ops.quantization import rebuilt


class Services(LossPerLabel, keras.Model):
    """A Keras model with a faster first step, and errors instead of broken files."""

    _r_drop = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_layouts(self)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        model = super().from_config(
            {name: value for name, value in config.items() if name != "frozen"}, custom_objects
        )
        parts = model._flatten_layers(include_self=False)
        for index in config.get("frozen", ()):
            parts[index].trainable = False
        return model

    def frozen_parts(self) -> dict[str, list[int]]:
        """The entry of the configuration that says which parts of the model are frozen, if any.

        They are known by their places, because a layer without a name has another one in a copy.
        What LoRA froze is not among them: a file holds its adapters merged.
        """
        parts = self._flatten_layers(include_self=False)
        if not self.trainable or lora.active(self) or all(part.trainable for part in parts):
            return {}
        return {"frozen": [i for i, part in enumerate(parts) if not part.trainable]}

    def make_train_function(self, force: bool = False) -> Callable | None:
        """Makes the training step, for Keras. The optimizer gets its variables before.

        Otherwise TensorFlow would make them while it traces the step, and then trace it again,
        which is half of the first step's time. The process also keeps the memory that steps free.
        """
        r_drop.check(self._r_drop, self.loss)
        keep_freed_memory()
        if not self.optimizer.built:
            strategy = getattr(self, "distribute_strategy", None)  # only TensorFlow has one
            with contextlib.nullcontext() if strategy is None else strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def enable_r_drop(self, alpha: float = 1.0) -> None:
        """Trains with two passes per step, whose dropout differs and which shall agree: R-Drop.

        ```
        loss = (loss_1 + loss_2) / 2 + alpha / 4 * (KL(p_1 | p_2) + KL(p_2 | p_1))
        ```

        Liang et al. (2021), equation 4, divided by 2 because our loss is a mean. A step takes twice
        as long. The divergence is weighted as the labels are. It is part of `loss` and not of
        `val_loss`; metrics see the first pass. Call this before the first step, or compile the
        model afterwards. A saved model does not keep it: call it again after loading.

        Args:
            alpha: Weight of the divergence, at least 0. The paper has 5 for translation; a small
                model of little text gained with 1, and lost with 5. 0 trains with one pass.

        Raises:
            ValueError: If alpha is negative, and before the first step if the loss is no
                `SmoothedCrossentropy`.

        Example:

        ```python
        model = kt.models.Transformer.from_preset("tiny", vocabulary_size=100)
        model.enable_r_drop(alpha=1.0)
        model.compile(optimizer="adam", loss=kt.losses.SmoothedCrossentropy(0.1))
        ```
        """
        if not 0 <= alpha < float("inf"):
            raise ValueError(f"alpha is a number of at least 0, got {alpha}, such as 1.")
        self._r_drop = alpha

    def compute_loss(
        self,
        x: Any = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The loss as Keras computes it; in training after `enable_r_drop`, that of two passes."""

        def loss_of(logits):
            return super(Services, self).compute_loss(x, y, logits, sample_weight, training)

        if not (training and self._r_drop):
            return loss_of(y_pred)
        return r_drop.loss_of_two(self, loss_of, self._r_drop, x, y, y_pred, sample_weight)

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
