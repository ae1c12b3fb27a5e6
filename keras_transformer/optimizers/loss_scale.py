"""Dynamic loss scaling for float16, with skipped updates counted."""

from typing import Any

import keras

from keras_transformer.ops.keras_hooks import check_calls, guarded
from keras_transformer.optimizers.paper_adam import PaperAdam, is_traced


@keras.saving.register_keras_serializable(package="keras_transformer")
@guarded(keras.optimizers.LossScaleOptimizer)
class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' dynamic loss scale for float16 around `PaperAdam`, with skipped updates counted.

    When a scaled gradient overflows, Keras skips the update silently, and the schedule waits while
    the data moves on. Here a skipped update counts as an update, in the schedule and in
    `skipped_updates`.

    Args:
        inner_optimizer: A `PaperAdam` without gradient accumulation.
        **kwargs: Further arguments of `keras.optimizers.LossScaleOptimizer`.

    Raises:
        ValueError: Under gradient accumulation, where Keras would lose single micro-batches.

    Example:

    ```python
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    model.compile(optimizer=LossScale(PaperAdam(d_model=512)), loss=SmoothedCrossentropy())
    ```
    """

    def __init__(self, inner_optimizer: PaperAdam, **kwargs: Any) -> None:
        if inner_optimizer.gradient_accumulation_steps:
            raise ValueError(
                "float16 with gradient accumulation would lose single micro-batches. Use bfloat16, "
                "or larger batches without accumulation."
            )
        super().__init__(inner_optimizer, **kwargs)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply(grads, trainable_variables)
        if is_traced(self):  # otherwise only the branch of this update has run
            check_calls(self, LossScale, "update")

    def stateless_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().stateless_apply(*args, **kwargs)
        check_calls(self, LossScale, "update")
        return result

    def _stateful_handle_non_finite_grads(self):
        super()._stateful_handle_non_finite_grads()
        inner = self.inner_optimizer
        for counter in (inner.iterations, inner.skipped_updates, inner.skipped_in_a_row):
            counter.assign_add(1)

    def _stateless_handle_non_finite_grads(self, optimizer_variables, trainable_variables):
        mapping = list(zip(self.variables, optimizer_variables, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self._stateful_handle_non_finite_grads()
        return trainable_variables, [scope.get_current_value(v) for v in self.variables]
