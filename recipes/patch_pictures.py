"""What a patch of an image attends to, beside what a convolution sees."""

import keras
import numpy as np
from keras import ops


def receptive_field(function, image, place):
    """How strongly each pixel of an image acts on one place of what is computed from it.

    ```
    r(y, x) = sqrt(sum over channels c, d of (d output[place, d] / d image[y, x, c])^2)
    ```

    0 where a pixel has no say. The slopes are those at this image.

    Args:
        function: from images [B, Y, X, C] to an output of width D, [B, ..., D], row by row: a Keras
            model, or any function of `keras.ops`.
        image: floats [Y, X, C].
        place: index of the place in the output, without row and width: `(3,)` of [B, S, D],
            `(7, 7)` of [B, Y, X, D].

    Returns:
        [Y, X] in NumPy float32.

    Example:

    ```python
    convolution = keras.layers.Conv2D(8, 3, padding="same")
    receptive_field(convolution, np.zeros((9, 9, 1)), (4, 4)) > 0  # 3 x 3 pixels around the centre
    ```
    """
    image = ops.convert_to_tensor(np.asarray(image, "float32")[None])
    width = function(image).shape[-1]

    def chosen(images):
        # Row d asks for entry d: one backward pass gives the slopes of all entries.
        at_place = function(images)[(slice(None), *place)]  # [D, D]
        return ops.sum(ops.cast(at_place, "float32") * ops.eye(width))

    slopes = ops.convert_to_numpy(_gradient(chosen, ops.repeat(image, width, axis=0)))
    return np.sqrt(np.sum(np.square(slopes), axis=(0, -1)))


def _gradient(function, x):
    """The gradient of a scalar function of one tensor."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)
    if backend == "jax":
        import jax

        return jax.grad(function)(x)
    import torch

    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


def layers_of_convolution(num_layers, image_shape, filters=16):
    """A model of 3 x 3 convolutions, one after another, with random weights: [B, Y, X, filters].

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
    """The first layers of a `VisionTransformer`: images -> [B, S, D]."""

    def function(images):
        x = model.embedding(images)
        for layer in model.encoder.layers[:num_layers]:
            x = layer(x)
        return x

    return function


def patch_attention(model, image, patch=None):
    """What one patch of an image attends to, and how far that is from what a convolution sees.

    A row of pictures for each layer of the model:

    - the attention of the patch to all patches, a heat map for each head; each map has a scale of
      its own, from 0;
    - `receptive_field` of the patch after so many layers: every pixel acts on it from the first on;
    - that of the pixel at its middle after so many 3 x 3 convolutions with random weights: it grows
      by a pixel a side and layer.

    Args:
        model: a `VisionTransformer`.
        image: floats [Y, X, C], as the model takes them.
        patch: row and column of the patch; by default the one in the middle.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: where the image or the patch is not one of the model.

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
        extent = (0, shape[1], shape[0], 0)  # in pixels, whatever the cells are
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
            # Logarithms, as far pixels act weakly; what does not act at all is left white.
            logs = np.log10(np.where(field > 0, field / field.max(), np.nan))
            show((i, num_heads + 2 + j), logs, title, mark, vmin=-3, vmax=0, cmap="viridis")
    return figure


def _square(corner, size):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, size, size, fill=False, edgecolor="deepskyblue", linewidth=1.5)
