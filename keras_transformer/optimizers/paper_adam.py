"""Adam as the paper uses it (section 5.3), indexed by update."""

import functools
from typing import Any

import keras
from keras import ops

from keras_transformer.ops import Tensor, keras_hooks, updates
from keras_transformer.ops.compilation import values_of
from keras_transformer.optimizers.schedules import PaperSchedule


@keras.saving.register_keras_serializable(package="keras_transformer")
@keras_hooks.guarded(keras.optimizers.Adam)
class PaperAdam(keras.optimizers.Adam):
    """Adam with beta_1 = 0.9, beta_2 = 0.98, epsilon = 1e-9 and the paper's schedule (section 5.3).

    Unlike `keras.optimizers.Adam`, it

    - counts in updates. The schedule gets `update + 1`, also under gradient accumulation, where
      Keras counts micro-batches; a moving average of the weights moves only with updates;
    - skips and counts an update whose gradient is not finite, so that one bad batch does not
      destroy the weights. The schedule moves on;
    - keeps the norm of the gradient for display;
    - computes in float32 where variables are float16 or bfloat16, and keeps their moments in
      float32: epsilon and the squares of small gradients are 0 in float16.

    Args:
        d_model: Width of the model, for the schedule.
        warmup_steps: Updates until the highest rate; 4,000 in the paper.
        learning_rate: A number or another schedule, instead of the paper's.
        beta_1, beta_2, epsilon: As in the paper.
        global_clipnorm: A gradient with a longer norm is scaled down to this norm as a whole.
        gradient_accumulation_steps: Micro-batches per update.
        **kwargs: Further arguments of `keras.optimizers.Adam` (use_ema, weight_decay, ...).

    Raises:
        ValueError: Without `d_model` and `learning_rate`; for `clipnorm`, `clipvalue`, `amsgrad` or
            `ema_overwrite_frequency`; for a `global_clipnorm` that is not above 0.

    Example:

    ```python
    model.compile(optimizer=PaperAdam(d_model=512, warmup_steps=4000), loss=SmoothedCrossentropy())
    model.fit(batches, epochs=10, steps_per_epoch=500)
    model.optimizer.learning_rate  # the rate of the next update
    model.optimizer.gradient_norm  # of the last update, before clipping
    ```
    """

    def __init__(
        self,
        d_model: int | None = None,
        warmup_steps: int = 4000,
        learning_rate: Any = None,
        beta_1: float = 0.9,
        beta_2: float = 0.98,
        epsilon: float = 1e-9,
        name: str = "paper_adam",
        **kwargs: Any,
    ) -> None:
        if learning_rate is None:
            if d_model is None:
                raise ValueError(
                    "The paper's schedule needs the model's width. Pass PaperAdam(d_model=512), or "
                    "a learning_rate."
                )
            learning_rate = PaperSchedule(d_model, warmup_steps)
        if kwargs.get("clipnorm") or kwargs.get("clipvalue"):
            raise ValueError(
                "PaperAdam clips the whole gradient: use global_clipnorm instead of clipnorm or "
                "clipvalue."
            )
        if kwargs.get("amsgrad") or kwargs.get("ema_overwrite_frequency"):
            raise ValueError(
                "PaperAdam has no amsgrad and no ema_overwrite_frequency. Leave them out, or use "
                "keras.optimizers.Adam."
            )
        norm = kwargs.get("global_clipnorm")
        if norm is not None and not 0 < norm < float("inf"):
            raise ValueError(
                f"global_clipnorm is a number above 0, got {norm}. Leave it out to clip nothing."
            )
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            name=name,
            **kwargs,
        )

    def build(self, var_list: Any) -> None:
        if self.built:
            return
        super().build(var_list)
        self.gradient_norm = self.add_variable((), name="gradient_norm")
        self.finite = self.add_variable((), initializer="ones", name="finite")
        self.skipped_updates = self.add_variable((), dtype="int32", name="skipped_updates")
        self.skipped_in_a_row = self.add_variable((), dtype="int32", name="skipped_in_a_row")

    def add_variable(
        self,
        *args: Any,
        aggregation: str = "only_first_replica",
        dtype: Any = None,
        **kwargs: Any,
    ) -> keras.Variable:
        # All replicas compute the same values, which MirroredStrategy has to be told.
        dtype = _at_least_float32(dtype or keras.config.floatx())
        return super().add_variable(*args, aggregation=aggregation, dtype=dtype, **kwargs)

    @property
    def updates(self) -> Any:
        """Number of updates so far, skipped ones included."""
        return self.iterations

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply(grads, trainable_variables)
        if len(grads) and not keras_hooks.is_checked(self, "update"):
            every = self.gradient_accumulation_steps or 1
            if is_traced(self) or int(self._iterations) % every == 0:  # an update was computed
                average = ["update with use_ema"] if self.use_ema else []
                keras_hooks.check_calls(self, PaperAdam, "update", *average)

    def _get_current_learning_rate(self):
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.updates + 1)
        return super()._get_current_learning_rate()

    def _backend_apply_gradients(self, grads, trainable_variables):
        grads = [ops.cast(g, _at_least_float32(g.dtype)) for g in grads]
        super()._backend_apply_gradients(grads, trainable_variables)

    def _clip_gradients(self, grads):
        """Nothing yet: Keras would clip the gradient of each replica."""
        return grads

    # The gradient is complete, summed over replicas and micro-batches, only in these two hooks.

    def _all_reduce_sum_gradients(self, grads_and_vars):  # TensorFlow
        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        return list(zip(self._guard(updates.dense(grads)), variables, strict=True))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if not hasattr(keras.optimizers.Adam, "_all_reduce_sum_gradients"):
            grads = self._guard(grads)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _guard(self, grads: list[Tensor]) -> list[Tensor]:
        """Measures and clips the gradient, and replaces it by zeros if it is not finite."""
        grads = [ops.convert_to_tensor(g) for g in grads]
        norm = ops.sqrt(sum(updates.sum_of_squares(g) for g in grads))
        finite = ops.isfinite(norm)
        skipped = ops.cast(ops.logical_not(finite), "int32")
        self.gradient_norm.assign(norm)
        self.finite.assign(ops.cast(finite, "float32"))
        self.skipped_updates.assign_add(skipped)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + skipped) * skipped)
        scale = None
        if self.global_clipnorm:
            scale = ops.minimum(1.0, self.global_clipnorm / ops.maximum(norm, 1e-12))
        return updates.scaled_or_zeros(grads, scale, finite)

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` decays, so that a skipped update decays nothing."""

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate):
        """`update_step` on TensorFlow: one operation per variable, from scalars they share."""
        if not updates.is_plain_tensorflow():
            super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)
            return
        scalars = functools.cache(lambda dtype: self._scalars(learning_rate, dtype))
        for gradient, variable in grads_and_vars:
            dtype = keras.backend.standardize_dtype(variable.dtype)
            if _at_least_float32(dtype) != dtype:
                self.update_step(gradient, variable, learning_rate)
                continue
            if self.weight_decay and self._use_weight_decay(variable):
                rate = scalars(dtype)["lr"] * self.weight_decay
                self.assign_sub(variable, variable * rate)
            index = self._get_variable_index(variable)
            m, v = self._momentums[index], self._velocities[index]
            updates.fused_adam(variable, m, v, gradient, self.epsilon, **scalars(dtype))

    def _scalars(self, learning_rate, dtype):
        finite, step = ops.cast(self.finite, dtype), ops.cast(self.iterations + 1, dtype)
        return {
            "lr": finite * ops.cast(learning_rate, dtype),
            "beta1_power": ops.power(self.beta_1, step),
            "beta2_power": ops.power(self.beta_2, step),
            # Decays of 1 leave the moments as they are in a skipped update.
            "beta1": 1 - finite * (1 - self.beta_1),
            "beta2": 1 - finite * (1 - self.beta_2),
        }

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """Adam, with every change times `finite`: 0 leaves weights and moments as they are."""
        m = self._momentums[self._get_variable_index(variable)]
        v = self._velocities[self._get_variable_index(variable)]
        dtype = m.dtype  # float32, also for a float16 variable
        value = ops.cast(ops.convert_to_tensor(variable), dtype)
        finite = ops.cast(self.finite, dtype)
        gradient = ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        rate = finite * ops.cast(learning_rate, dtype)
        if self.weight_decay and self._use_weight_decay(variable):
            value = value - value * (rate * self.weight_decay)
        correction = ops.sqrt(1 - ops.power(self.beta_2, step)) / (1 - ops.power(self.beta_1, step))
        self.assign_add(m, (gradient - m) * (finite * (1 - self.beta_1)))
        self.assign_add(v, (ops.square(gradient) - v) * (finite * (1 - self.beta_2)))
        value = value - m * (rate * correction) / (ops.sqrt(v) + self.epsilon)
        self.assign(variable, ops.cast(value, variable.dtype))

    def _update_model_variables_moving_average(self, trainable_variables):
        every = self.gradient_accumulation_steps or 1
        moves = ops.cast(ops.equal((self._iterations + 1) % every, 0), "float32") * self.finite
        # The first update sets the average, the following ones move it.
        first = ops.equal(self.updates - self.skipped_updates, 0)
        share = moves * ops.where(first, 1.0, 1.0 - self.ema_momentum)
        for variable, average in self._averaged(trainable_variables):
            value = ops.cast(ops.convert_to_tensor(variable), average.dtype)
            average.assign_add((value - average) * ops.cast(share, average.dtype))

    def _overwrite_model_variables_with_average_value(self, trainable_variables):
        for variable, average in self._averaged(trainable_variables):
            # A copy, because JAX would otherwise share one array, and `evaluate` gives that away.
            value = ops.copy(ops.convert_to_tensor(average))
            variable.assign(ops.cast(value, variable.dtype))

    def _averaged(self, variables):
        pairs = zip(variables, self._model_variables_moving_average, strict=True)
        return [pair for pair in pairs if pair[1] is not None]  # scales of float8 have none

    def finalize_variable_values(self, var_list: Any) -> None:
        if self.use_ema and int(self.updates - self.skipped_updates) > 0:  # there is an average
            super().finalize_variable_values(var_list)
            keras_hooks.check_calls(self, PaperAdam, "end with use_ema")


def is_traced(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether a backend traces a function of the optimizer, instead of computing at once."""
    return values_of(ops.convert_to_tensor(optimizer.iterations)) is None


def _at_least_float32(dtype):
    dtype = keras.backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype
