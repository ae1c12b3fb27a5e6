"""The Vision Transformer (Dosovitskiy et al., 2020): an encoder over the patches of an image."""

from typing import Any

import keras
from keras import ops

from keras_transformer.layers.encoder import Encoder, as_tuple
from keras_transformer.layers.patch_embedding import PatchEmbedding
from keras_transformer.models.functional import FunctionalModel, arguments_of_model
from keras_transformer.ops import Tensor


@keras.saving.register_keras_serializable(package="keras_transformer")
class VisionTransformer(FunctionalModel):
    """An image cut into patches, an encoder over them as over words, and a linear classifier.

    ```
    x      = Encoder([class; patches W + b] + PE)       every patch attends to every other
    logits = x_class W + b                              pooling="mean": of the mean over patches
    ```

    `classify` is the wiring, which a subclass may override: see
    `models.functional.FunctionalModel`.

    Args:
        image_shape: Height, width and channels (Y, X, C).
        num_classes: Number of classes V.
        patch_size: Height and width of a patch, which divides Y and X.
        num_layers, d_model, num_heads, d_ff: As in `CausalLanguageModel`.
        dropout: Rate on the embedded patches and on each sub-layer's output.
        pooling: What is classified: `"class"`, the token that goes before the patches, or `"mean"`,
            the mean over the patches, without such a token.
        positions: `"learned"`, `"sinusoidal"`, or None: the model is then blind to their order.
        **block_options: Further arguments of the layers; by default `norm="pre"`,
            `activation="gelu"` and `use_bias=True`, as in the paper.

    Call arguments:
        inputs: Floats [B, Y, X, C].

    Returns:
        Logits [B, V].

    Raises:
        ValueError: If the sizes do not fit together, or for another `pooling`.

    Example:

    ```python
    model = VisionTransformer((28, 28, 1), num_classes=10, patch_size=7, num_layers=4, d_model=64,
                              num_heads=4)
    logits = model(keras.random.normal((2, 28, 28, 1)))  # [2, 10]
    ```
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        patch_size: int = 16,
        num_layers: int = 12,
        d_model: int = 768,
        num_heads: int = 12,
        d_ff: int | None = None,
        dropout: float = 0.1,
        *,
        pooling: str = "class",
        positions: str | None = "learned",
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **block_options: Any,
    ) -> None:
        arguments = arguments_of_model(locals(), norm="pre", activation="gelu", use_bias=True)
        arguments["sizes"]["image_shape"] = tuple(image_shape)  # a list after loading
        if pooling not in ("class", "mean"):
            raise ValueError(f"pooling is 'class' or 'mean', got {pooling!r}.")
        self.pooling = pooling
        super().__init__(keras.Input(image_shape, name="images"), **arguments)

    def make_layers(self, dtype: Any, **sizes: Any) -> dict[str, Any]:
        own = ("image_shape", "num_classes", "patch_size", "pooling", "positions")
        block = {name: value for name, value in sizes.items() if name not in own}
        d_model = sizes["d_model"]
        return {
            "embedding": PatchEmbedding(
                sizes["patch_size"],
                d_model,
                positions=sizes["positions"],
                class_token=sizes["pooling"] == "class",
                dropout=sizes["dropout"],
                dtype=dtype,
                name="embedding",
            ),
            "encoder": Encoder(
                **{**block, "d_ff": block["d_ff"] or 4 * d_model}, dtype=dtype, name="encoder"
            ),
            "logits": keras.layers.Dense(sizes["num_classes"], dtype=dtype, name="logits"),
        }

    def wire(self, inputs: Tensor) -> Tensor:
        return self.classify(inputs)

    def classify(self, images: Tensor, return_attention_weights: bool = False) -> Any:
        """Images [B, Y, X, C] -> logits [B, V], and the attention weights if asked for.

        Args:
            images: Floats [B, Y, X, C].
            return_attention_weights: Whether to return the weights of all layers too, as
                L x [B, H, S, S]. A class token is the first of the S positions.
        """
        x = self.embedding(images)  # [B, S, D]
        x, *weights = as_tuple(self.encoder(x, return_attention_weights=return_attention_weights))
        x = x[:, 0] if self.pooling == "class" else ops.mean(x, axis=1)  # [B, D]
        logits = self.logits(x)  # [B, V]
        return (logits, *weights) if weights else logits
