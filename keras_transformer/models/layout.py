"""How the weights of a model are spread over devices (Shoeybi et al., 2019), on JAX."""

import re

import keras

from keras_transformer.ops import backend
from keras_transformer.ops.capabilities import splits_weights

# Which axis of a weight is split. Queries, keys and values are split by heads, the inner layer by
# its width: a device needs no other device inside a sub-layer, and its outputs are summed. Tokens
# are split by the vocabulary.
SPLIT = {
    r"(.+/)?(query|key|value|inner)/kernel": (None, True),
    r"(.+/)?(query|key|value|inner)/bias": (True,),
    r"(.+/)?(output|outer|logits)/kernel": (True, None),
    r"(.+/)?token/embeddings": (True, None),
}
OPTIONAL = frozenset(list(SPLIT)[-1:])  # images have no tokens


class LayoutMap(keras.distribution.LayoutMap):
    """Layouts of which some are for weights that not every model has."""

    optional: frozenset[str] = frozenset()


def layout_map(
    device_mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """The layouts of all models of this package, for `keras.distribution.ModelParallel`.

    The number of devices along `axis` divides `num_heads`, `d_ff` and the vocabulary size. Biases
    of outputs, norms and positions are on every device.

    Args:
        device_mesh: The devices. One axis splits the weights, another may split the batches.
        axis: The name of the axis that splits the weights.

    Raises:
        ValueError: If the mesh has no such axis. A model that is made under `ModelParallel` raises
            one too if it has no weight for one of a user's patterns.

    Example:

    ```python
    devices = ["cpu:0"]  # on JAX keras.distribution.list_devices(), in rows of 4 for example
    mesh = keras.distribution.DeviceMesh((1, 1), ("batch", "model"), devices)
    layouts = kt.models.layout_map(mesh)
    layouts["encoder/layer_0/self_attention/query/kernel"].axes  # (None, "model")
    # Then keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch") becomes the
    # distribution, before the model is made.
    ```
    """
    if axis not in device_mesh.axis_names:
        raise ValueError(
            f"axis={axis!r}: the mesh has {device_mesh.axis_names}. Name one of these."
        )
    layouts = LayoutMap(device_mesh)
    for pattern, split in SPLIT.items():
        layouts[pattern] = keras.distribution.TensorLayout(
            [axis if each else None for each in split], device_mesh
        )
    layouts.optional = OPTIONAL
    return layouts


def check_layouts(model: keras.Model) -> None:
    """Raises an error if the current `ModelParallel` would not split what it says it splits.

    Keras compares whole paths, and puts weights without a pattern on every device, silently. On
    other backends than JAX it does so with all weights.
    """
    distribution = keras.distribution.distribution()
    if not isinstance(distribution, keras.distribution.ModelParallel):
        return
    if not splits_weights():
        raise ValueError(
            "keras.distribution.ModelParallel splits weights on the jax backend only, and this is "
            f"{backend.name()}: every device would hold the whole {model.name}. Set "
            "KERAS_BACKEND=jax before Keras is imported."
        )
    layouts = distribution._layout_map
    paths = [variable.path for variable in model.variables]
    for pattern in layouts:
        used = any(re.fullmatch(pattern, path) for path in paths)
        if not used and pattern not in getattr(layouts, "optional", ()):
            raise ValueError(
                f"The pattern {pattern!r} of the layout map fits no weight of {model.name}, so "
                "all of it would be on every device. A pattern is compared with whole paths, such "
                f"as {paths[0]!r}. Correct it, or use kt.models.layout_map(device_mesh)."
            )
