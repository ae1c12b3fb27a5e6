"""Texts to classes by an encoder, new or pre-trained (Devlin et al., 2018, section 3.2)."""

from typing import Any

import keras
from keras.dtype_policies import DTypePolicyMap

from keras_transformer.layers.dropout import Dropout
from keras_transformer.layers.pooling import MeanPooling
from keras_transformer.models.functional import FunctionalModel, arguments_of_model
from keras_transformer.models.single_stack import SingleStack
from keras_transformer.ops import Tensor


@keras.saving.register_keras_serializable(package="keras_transformer")
class TextClassifier(SingleStack):
    """The encoder of `MaskedLanguageModel`, the mean of its outputs, and a class for the text.

    ```
    logits = Dropout(mean over real tokens of Encoder(Embedding(token_ids))) W + b
    ```

    `take_encoder` starts from what a `MaskedLanguageModel` has learnt. `classify` is the wiring,
    which a subclass may override: see `models.functional.FunctionalModel`.

    Args:
        vocabulary_size: Number of tokens V; id 0 is padding.
        num_classes: Number of classes C.
        num_layers, d_model, num_heads, d_ff, positions, max_length, embedding_norm: As in
            `CausalLanguageModel`.
        dropout: Rate on the embeddings, on each sub-layer's output, and on the mean.
        **block_options: Further arguments of the layers; by default `activation="gelu"`, as in
            BERT.

    Call arguments:
        inputs: Integers [B, S].

    Returns:
        Logits [B, C], in full precision.

    Raises:
        ValueError: If the sizes do not fit together.

    Example:

    ```python
    sizes = {"num_layers": 4, "d_model": 256, "num_heads": 4, "max_length": 128}
    classifier = TextClassifier(8_000, num_classes=2, **sizes)
    classifier.take_encoder(MaskedLanguageModel(8_000, **sizes))  # of use if it is trained
    logits = classifier(np.array([[2, 7, 5, 9, 3]]))  # [1, 2]
    ```
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_classes: int,
        num_layers: int = 12,
        d_model: int = 768,
        num_heads: int = 12,
        d_ff: int | None = None,
        dropout: float = 0.1,
        *,
        positions: str = "learned",
        max_length: int | None = None,
        embedding_norm: bool = False,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **block_options: Any,
    ) -> None:
        arguments = arguments_of_model(locals())
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        FunctionalModel.__init__(self, token_ids, **arguments)

    def make_layers(self, dtype: Any, *, num_classes: int, **sizes: Any) -> dict[str, Any]:  # type: ignore[override]
        # In full precision: two classes would often have equal logits in bfloat16.
        full = dtype.variable_dtype
        if isinstance(dtype, DTypePolicyMap) and "classes" in dtype:
            full = dtype["classes"]
        return {
            **super().make_layers(dtype, **sizes),
            "pooling": MeanPooling(dtype=dtype, name="pooling"),
            "dropout": Dropout(sizes["dropout"], dtype=dtype, name="dropout"),
            "classes": keras.layers.Dense(num_classes, dtype=full, name="classes"),
        }

    def wire(self, inputs: Tensor) -> Tensor:
        return self.classify(inputs)

    def classify(self, token_ids: Tensor) -> Tensor:
        """Ids [B, S] -> logits [B, C]."""
        x = self.encoder(self.embedding(token_ids))  # [B, S, D]
        return self.classes(self.dropout(self.pooling(x)))

    def take_encoder(self, model: Any) -> None:
        """Copies the weights of another model's embedding and encoder, not those of the classes.

        Args:
            model: A `MaskedLanguageModel`, or another model with an `.embedding` and an `.encoder`
                of the same sizes.

        Raises:
            ValueError: If a size differs; then nothing is copied.
        """
        pairs: list[tuple] = []
        for part in ("embedding", "encoder"):
            mine, others = getattr(self, part).weights, getattr(model, part).weights
            shapes = [[tuple(weight.shape) for weight in weights] for weights in (mine, others)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"The {part}s differ in size: weights of {_differing(*shapes)} here and there. "
                    "Build both models with the same arguments."
                )
            pairs += zip(mine, others, strict=True)
        for mine, other in pairs:
            mine.assign(keras.ops.copy(other))  # else both share one array on JAX


def _differing(here, there):
    """The first two shapes that differ, in words; otherwise the two numbers of shapes."""
    for mine, other in zip(here, there, strict=False):
        if mine != other:
            return f"{mine} and {other}"
    return f"{len(here)} and {len(there)} matrices"
