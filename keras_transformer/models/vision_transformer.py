"""The Vision Transformer (Dosovitskiy et al., 2020): an encoder over the patches of an image."""

import keras
from keras import ops

from keras_transformer.layers.encoder import Encoder, as_tuple
from keras_transformer.layers.patch_embedding import PatchEmbedding
from keras_transformer.models.functional import FunctionalModel


@keras.saving.register_keras_serializable(package="keras_transformer")
class VisionTransformer(FunctionalModel):
    """An image cut into patches, the encoder over them as over words, and a linear classifier.

    ```
    x      = Encoder([class; patches W + b] + PE)       every patch attends to every other
    logits = x_class W + b                              pooling="mean": of the mean over patches
    ```

    `classify` is the wiring, used on symbolic tensors to build the model and on real ones to look
    at its attention. A subclass may override it: see `models.functional.FunctionalModel`.

    Args:
        image_shape: height, width and channels (Y, X, C).
        num_classes: number of classes V.
        patch_size: height and width of a patch, which divides Y and X.
        num_layers: layers L.
        d_model: width D.
        num_heads: attention heads H.
        d_ff: width F of the feed-forward networks; 4 D where not given.
        dropout: on the embedded patches and on each sub-layer's output.
        pooling: what is classified: `"class"`, the token that goes before the patches, or `"mean"`,
            the mean over the patches, without such a token.
        positions: `"learned"`, `"sinusoidal"`, or None: the model is then blind to their order.
        **block_options: further arguments of the layers; by default `norm="pre"`,
            `activation="gelu"` and `use_bias=True`, as in the paper.

    Call arguments:
        inputs: floats [B, Y, X, C].

    Returns:
        logits [B, V].

    Raises:
        ValueError: for sizes that do not fit together, or another `pooling`.

    Example:

    ```python
    model = VisionTransformer((28, 28, 1), num_classes=10, patch_size=7, num_layers=4, d_model=64,
                              num_heads=4)
    logits = model(keras.random.normal((2, 28, 28, 1)))  # [2, 10]
    ```
    """

    def __init__(
        self,
        image_shape,
        num_classes,
        patch_size=16,
        num_layers=12,
        d_model=768,
        num_heads=12,
        d_ff=None,
        dropout=0.1,
        *,
        pooling="class",
        positions="learned",
        name=None,
        dtype=None,
        trainable=True,
        **block_options,
    ):
        if pooling not in ("class", "mean"):
            raise ValueError(f"pooling is 'class' or 'mean', got {pooling!r}.")
        self.pooling = pooling
        sizes = {
            "image_shape": tuple(image_shape),
            "num_classes": num_classes,
            "patch_size": patch_size,
            "num_layers": num_layers,
            "d_model": d_model,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "dropout": dropout,
            "pooling": pooling,
            "positions": positions,
            **{"norm": "pre", "activation": "gelu", "use_bias": True, **block_options},
        }
        images = keras.Input(image_shape, name="images")
        super().__init__(images, sizes, dtype=dtype, name=name, trainable=trainable)

    def make_layers(self, dtype, **sizes):
        image_shape, num_classes, patch_size, pooling, positions = (
            sizes.pop(size)
            for size in ("image_shape", "num_classes", "patch_size", "pooling", "positions")
        )
        d_model = sizes["d_model"]
        block = {**sizes, "d_ff": sizes["d_ff"] or 4 * d_model}
        return {
            "embedding": PatchEmbedding(
                patch_size,
                d_model,
                positions=positions,
                class_token=pooling == "class",
                dropout=sizes["dropout"],
                dtype=dtype,
                name="embedding",
            ),
            "encoder": Encoder(**block, dtype=dtype, name="encoder"),
            "logits": keras.layers.Dense(num_classes, dtype=dtype, name="logits"),
        }

    def wire(self, inputs):
        return self.classify(inputs)

    def classify(self, images, return_attention_weights=False):
        """Images [B, Y, X, C] -> logits [B, V]; and the weights if asked for.

        Args:
            images: floats [B, Y, X, C].
            return_attention_weights: whether to return the weights of all layers too, as
                L x [B, H, S, S]; with a class token, that is the first of the S positions.
        """
        x = self.embedding(images)  # [B, S, D]
        x, *weights = as_tuple(self.encoder(x, return_attention_weights=return_attention_weights))
        x = x[:, 0] if self.pooling == "class" else ops.mean(x, axis=1)  # [B, D]
        logits = self.logits(x)  # [B, V]
        return (logits, *weights) if weights else logits
