"""What a patch of an image attends to, compared with what a convolution sees."""

import keras
import numpy as np
from keras import ops

from keras_transformer.ops.gradients import gradients


def receptive_field(function, image, place):
    """Returns how strongly each pixel of an image affects one place of an output.

    ```
    r(y, x) = sqrt(sum over channels c, d of (d output[place, d] / d image[y, x, c])^2)
    ```

    It is 0 if a pixel has no effect. The slopes are those at this image.

    Args:
        function: A Keras model, or any function of `keras.ops`, from images [B, Y, X, C] to an
            output [B, ..., D]. The images must not affect each other.
        image: Floats [Y, X, C].
        place: The index of the place in the output, without its first and last axes: `(3,)` for
            [B, S, D], `(7, 7)` for [B, Y, X, D].

    Returns:
        NumPy float32 [Y, X].

    Example:

    ```python
    convolution = keras.layers.Conv2D(8, 3, padding="same")
    receptive_field(convolution, np.zeros((9, 9, 1)), (4, 4)) > 0  # 3 x 3 pixels around the centre
    ```
    """
    image = ops.convert_to_tensor(np.asarray(image, "float32")[None])
    width = function(image).shape[-1]

    def chosen(images):
        # Copy d of the image asks for entry d, so one backward pass gives all slopes.
        at_place = function(images)[(slice(None), *place)]  # [D, D]
        return ops.sum(ops.cast(at_place, "float32") * ops.eye(width))

    [slopes] = gradients(chosen, [ops.repeat(image, width, axis=0)])
    slopes = ops.convert_to_numpy(slopes)
    return np.sqrt(np.sum(np.square(slopes), axis=(0, -1)))


def layers_of_convolution(num_layers, image_shape, filters=16):
    """Returns a model of successive 3 x 3 convolutions with random weights.

    Example:

    >>> layers_of_convolution(2, (28, 28, 1)).output_shape  # (None, 28, 28, 16)
    """
    images = keras.Input(image_shape, dtype="float32")
    x = images
    for i in range(num_layers):
        kernel = keras.initializers.GlorotUniform(seed=i)
        x = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="gelu",
            kernel_initializer=kernel,
            dtype="float32",
        )(x)
    return keras.Model(images, x)


def layers_of_attention(model, num_layers):
    """Returns the first layers of a `VisionTransformer` as a function: images -> [B, S, D]."""

    def function(images):
        x = model.embedding(images)
        for layer in model.encoder.layers[:num_layers]:
            x = layer(x)
        return x

    return function


def patch_attention(model, image, patch=None):
    """Draws what one patch of an image attends to, and what a convolution would see.

    For each layer of the model there is a row of pictures:

    - the attention of the patch to all patches, a heat map per head, each with its own scale from
      0;
    - `receptive_field` of the patch after this layer: every pixel affects it from the first layer;
    - that of the pixel in its middle after as many 3 x 3 convolutions with random weights: it grows
      by one pixel per side and layer.

    Args:
        model: A `VisionTransformer`.
        image: Floats [Y, X, C], as the model takes them.
        patch: The row and column of the patch; the one in the middle unless given.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If the image or the patch does not fit the model.

    Example:

    ```python
    patch_attention(model, image).savefig("attention.png")
    ```
    """
    from matplotlib.figure import Figure

    shape, (rows, columns) = model.input_shape[1:], model.embedding.grid
    image = np.asarray(image, "float32")
    if image.shape != shape:
        raise ValueError(f"The model takes images of shape {shape}, got {image.shape}.")
    row, column = patch = (rows // 2, columns // 2) if patch is None else patch
    if not (0 <= row < rows and 0 <= column < columns):
        raise ValueError(f"There are {rows} x {columns} patches, from (0, 0), got {tuple(patch)}.")
    first = model.embedding.class_token  # patches are counted after it
    position = first + row * columns + column
    weights = model.classify(image[None], return_attention_weights=True)[1]
    weights = [ops.convert_to_numpy(ops.cast(each, "float32"))[0] for each in weights]
    num_layers, num_heads = len(weights), len(weights[0])
    size = model.embedding.patch_size
    middle = (row * size + size // 2, column * size + size // 2)

    figure = Figure(
        figsize=(1.35 * (num_heads + 3.3), 1.5 * num_layers + 0.7), layout="constrained"
    )
    grid = figure.add_gridspec(
        num_layers, num_heads + 4, width_ratios=[1, *[1] * num_heads, 0.3, 1, 1]
    )

    def show(place, values, title="", mark=True, **options):
        axes = figure.add_subplot(grid[place])
        extent = (0, shape[1], shape[0], 0)  # in pixels
        axes.imshow(values, extent=extent, interpolation="nearest", **options)
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=8)
        if mark:
            corner = (column * size, row * size)
            axes.add_patch(_square(corner, size))
        return axes

    seen = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
    show((0, 0), seen if shape[2] == 3 else seen.mean(axis=-1), "the patch", cmap="gray")
    for i in range(num_layers):
        for head in range(num_heads):
            heat = weights[i][head, position, first:].reshape(rows, columns)
            axes = show((i, 1 + head), heat, f"head {head + 1}" * (i == 0), vmin=0, cmap="magma")
            if head == 0:
                axes.set_ylabel(f"layer {i + 1}", fontsize=8)
        fields = (
            (receptive_field(layers_of_attention(model, i + 1), image, (position,)), True),
            (receptive_field(layers_of_convolution(i + 1, shape), image, middle), False),
        )
        for j, (field, mark) in enumerate(fields):
            head = ("attention reaches", "convolution reaches")[j] + "\n" if i == 0 else ""
            title = f"{head}{np.count_nonzero(field):,} of {field.size:,} pixels"
            # Logarithms, because far pixels have weak effects. Pixels without effect stay white.
            logs = np.log10(np.where(field > 0, field / field.max(), np.nan))
            show((i, num_heads + 2 + j), logs, title, mark, vmin=-3, vmax=0, cmap="viridis")
    return figure


def _square(corner, size):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, size, size, fill=False, edgecolor="deepskyblue", linewidth=1.5)
