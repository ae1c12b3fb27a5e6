"""Images as sequences of patches (Dosovitskiy et al., 2020, section 3.1)."""

from typing import Any

import keras
from keras import ops

from keras_transformer.layers.positional_encoding import Positions
from keras_transformer.ops import Tensor
from keras_transformer.ops.products import apply_dense, look_up


def cut_patches(images: Tensor, patch_size: int) -> Tensor:
    """Squares of an image, row by row: [B, Y, X, C] -> [B, S, P * P * C], S = (Y / P) * (X / P).

    P = `patch_size` divides Y and X. The values of a patch are in the order of its rows, columns
    and channels.

    Example:

    >>> cut_patches(keras.ops.zeros((2, 28, 28, 1)), 7).shape  # (2, 16, 49)
    """
    height, width, channels = images.shape[1:]
    rows, columns = height // patch_size, width // patch_size
    images = ops.reshape(images, (-1, rows, patch_size, columns, patch_size, channels))
    images = ops.transpose(images, (0, 1, 3, 2, 4, 5))
    return ops.reshape(images, (-1, rows * columns, patch_size * patch_size * channels))


@keras.saving.register_keras_serializable(package="keras_transformer")
class PatchEmbedding(Positions):
    """A linear map of each patch of an image, plus positions, then dropout (section 3.1).

    ```
    x = Dropout([class; patch_1 W + b; ...; patch_S W + b] + PE)
    ```

    An image becomes a sequence of S vectors, like a sentence of S words. The map is a
    convolution whose stride is the size of its kernel.

    Args:
        patch_size: Height and width P of a patch. P divides the height and width of the image.
        d_model: Width D.
        positions: `"learned"`, `"sinusoidal"` (of the patch's number, row by row), or None.
        class_token: Whether a learned vector goes before the patches. A Transformer's output there
            describes the image as a whole.
        dropout: Share of the sum that training drops.

    Call arguments:
        inputs: Numbers [B, Y, X, C]; bytes are read as they are, from 0 to 255.

    Returns:
        [B, S, D], S = (Y / P) * (X / P); with a class token [B, 1 + S, D].

    Raises:
        ValueError: For unknown `positions`, or images that patches do not divide.

    Example:

    ```python
    embedding = PatchEmbedding(patch_size=7, d_model=64)
    x = embedding(keras.random.normal((2, 28, 28, 1)))  # [2, 1 + 16, 64]
    ```
    """

    def __init__(
        self,
        patch_size: int,
        d_model: int,
        positions: str | None = "learned",
        class_token: bool = True,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(positions, None, dropout, d_model, **kwargs)
        self.patch_size = patch_size
        self.class_token = class_token

    def build(self, input_shape: tuple) -> None:
        sizes, patch = tuple(input_shape[1:]), self.patch_size
        if len(sizes) != 3 or None in sizes or sizes[0] % patch or sizes[1] % patch:
            raise ValueError(
                f"Images are [B, Y, X, C] with known sizes, and Y and X multiples of patch_size="
                f"{patch}, got shape {tuple(input_shape)}. Resize or crop the images, or choose "
                "another patch_size."
            )
        self.input_spec = keras.layers.InputSpec(shape=(None, *sizes))
        self.grid = (sizes[0] // patch, sizes[1] // patch)
        self.max_length = self.grid[0] * self.grid[1] + self.class_token
        self.patches = keras.layers.Dense(self.d_model, dtype=self.dtype_policy, name="patches")
        self.patches.build((None, patch * patch * sizes[2]))
        if self.class_token:
            self.first = self._embedding(1, "class")
        self._build_positions()
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        # `build` knows the sizes of the image. In `fit` a batch may have unknown sizes.
        inputs = ops.cast(inputs, self.compute_dtype)  # bytes too
        inputs = ops.reshape(inputs, (-1, *self.input_spec.shape[1:]))
        x = cut_patches(inputs, self.patch_size)
        x = apply_dense(self.patches, ops.reshape(x, (-1, x.shape[-1])))
        x = ops.reshape(x, (-1, self.grid[0] * self.grid[1], self.d_model))  # [B, S, D]
        if self.class_token:
            first = look_up(self.first, ops.zeros((ops.shape(x)[0], 1), dtype="int32"))
            x = ops.concatenate([first, x], axis=1)  # [B, 1 + S, D]
        return self._with_positions(x, 0, training)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        sizes = (size // self.patch_size for size in input_shape[1:3])
        return (input_shape[0], next(sizes) * next(sizes) + self.class_token, self.d_model)

    def get_config(self) -> dict[str, Any]:
        names = "patch_size", "d_model", "class_token"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
