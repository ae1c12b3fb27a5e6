"""Learning-rate schedules, indexed by update, counted from 1."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_transformer")
class PaperSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then inverse square root (section 5.3).

    ```
    rate(step) = scale * d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)
    ```

    `step` counts updates from 1. It peaks at `step = warmup_steps`. `PaperAdam` hands it updates
    also under gradient accumulation; a plain Keras optimizer hands it `step = 0` first, where the
    rate is 0, and micro-batches.

    Args:
        d_model: width of the model.
        warmup_steps: updates until the peak; 4,000 in the paper.
        scale: factor on the whole schedule; 1 in the paper.

    Raises:
        ValueError: for sizes below 1.

    Example:

    >>> PaperSchedule(d_model=512, warmup_steps=4000)(4000)  # 0.000699
    """

    def __init__(self, d_model, warmup_steps=4000, scale=1.0):
        if d_model < 1 or warmup_steps < 1:
            raise ValueError(
                "d_model and warmup_steps are at least 1, got "
                f"d_model={d_model}, warmup_steps={warmup_steps}."
            )
        self.d_model = d_model
        self.warmup_steps = warmup_steps
        self.scale = scale

    @classmethod
    def with_peak(cls, peak, warmup_steps):
        """The schedule whose highest rate is `peak`, whatever the model's width.

        Example:

        >>> PaperSchedule.with_peak(0.005, warmup_steps=2000)(2000)  # 0.005
        """
        return cls(d_model=1, warmup_steps=warmup_steps, scale=peak * warmup_steps**0.5)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        decay = ops.rsqrt(ops.maximum(step, 1.0))
        warmup = step * self.warmup_steps**-1.5
        return self.scale * self.d_model**-0.5 * ops.minimum(decay, warmup)

    def get_config(self):
        return {
            "d_model": self.d_model,
            "warmup_steps": self.warmup_steps,
            "scale": self.scale,
        }
