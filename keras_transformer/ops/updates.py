"""The arithmetic of an optimizer's update, with as few passes over the gradients as possible."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_transformer.ops import Tensor


def sum_of_squares(tensor: Tensor) -> Tensor:
    """The sum of the squares, in float32: `ops.sum(ops.square(tensor))`."""
    tensor = ops.cast(tensor, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return 2 * tf.nn.l2_loss(tensor)  # reads the tensor once and writes nothing
    return ops.sum(ops.square(tensor))


def scaled_or_zeros(tensors: Sequence[Tensor], scale: Tensor | None, keep: Tensor) -> list[Tensor]:
    """The tensors times `scale` if `keep` is true, otherwise zeros."""

    def scaled():
        return [t if scale is None else t * ops.cast(scale, t.dtype) for t in tensors]

    if not is_plain_tensorflow():
        return [ops.where(keep, t, ops.zeros_like(t)) for t in scaled()]
    # A choice between two lists reads and writes no gradient, unlike `ops.where`.
    return ops.cond(keep, scaled, lambda: [ops.zeros_like(t) for t in tensors])


def is_plain_tensorflow() -> bool:
    """Whether variables are TensorFlow's own. Those of a strategy have more than one handle."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()


def dense(gradients: Sequence[Any]) -> list[Tensor]:
    """TensorFlow's gradients as tensors. An embedding's gradient may list a row more than once."""
    import tensorflow as tf

    return [tf.convert_to_tensor(gradient) for gradient in gradients]


def fused_adam(
    variable: Any, m: Any, v: Any, gradient: Tensor, epsilon: float, **scalars: Tensor
) -> None:
    """Adam's update as one operation of TensorFlow, which reads and writes each array once.

    Args:
        variable, m, v: The variable and its moments, of TensorFlow or of Keras.
        gradient: Its gradient.
        epsilon: Added to the root of `v`.
        **scalars: `lr`, `beta1`, `beta2`, `beta1_power` and `beta2_power`.
    """
    import tensorflow as tf

    handles = [(x.value if isinstance(x, keras.Variable) else x).handle for x in (variable, m, v)]
    tf.raw_ops.ResourceApplyAdam(
        **dict(zip(("var", "m", "v"), handles, strict=True)),
        grad=ops.cast(gradient, variable.dtype),
        epsilon=tf.constant(epsilon, variable.dtype),
        **scalars,
    )
