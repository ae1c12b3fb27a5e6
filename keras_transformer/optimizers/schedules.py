"""The paper's learning-rate schedule, by update, counted from 1."""

from typing import Any

import keras
from keras import ops

from keras_transformer.arguments import real_number
from keras_transformer.ops import Tensor


@keras.saving.register_keras_serializable(package="keras_transformer")
class PaperSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to `step = warmup_steps`, then inverse square root (section 5.3).

    ```
    rate(step) = scale * d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)
    ```

    `PaperAdam` counts optimizer updates from 1, even with gradient accumulation. Other Keras
    optimizers start at 0, where the rate is 0, and count micro-batches.

    Args:
        d_model: Width of the model.
        warmup_steps: Updates until the peak; 4,000 in the paper.
        scale: Factor of the whole schedule; 1 in the paper.

    Raises:
        ValueError: If a size is below 1, or the scale is negative or not finite.

    Example:

    >>> PaperSchedule(d_model=512, warmup_steps=4000)(4000)  # 0.000699
    """

    def __init__(self, d_model: int, warmup_steps: int = 4000, scale: float = 1.0) -> None:
        if d_model < 1 or warmup_steps < 1:
            raise ValueError(
                f"d_model and warmup_steps are at least 1, got {d_model=}, {warmup_steps=}."
            )
        self.d_model = d_model
        self.warmup_steps = warmup_steps
        self.scale = real_number("scale", scale)

    @classmethod
    def with_peak(cls, peak: float, warmup_steps: int) -> "PaperSchedule":
        """Returns the schedule with this highest rate, for a model of any width.

        Example:

        >>> PaperSchedule.with_peak(0.005, warmup_steps=2000)(2000)  # 0.005
        """
        return cls(d_model=1, warmup_steps=warmup_steps, scale=peak * warmup_steps**0.5)

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        decay = ops.rsqrt(ops.maximum(step, 1.0))
        warmup = step * self.warmup_steps**-1.5
        return self.scale * self.d_model**-0.5 * ops.minimum(decay, warmup)

    def get_config(self) -> dict[str, Any]:
        names = "d_model", "warmup_steps", "scale"
        return {name: getattr(self, name) for name in names}
