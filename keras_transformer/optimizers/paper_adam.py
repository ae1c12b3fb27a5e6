"""Adam as the paper uses it (section 5.3), indexed by update."""

import keras
from keras import ops

from keras_transformer.optimizers.schedules import PaperSchedule


@keras.saving.register_keras_serializable(package="keras_transformer")
class PaperAdam(keras.optimizers.Adam):
    """Adam with beta_1 = 0.9, beta_2 = 0.98, epsilon = 1e-9 and the paper's schedule (section 5.3).

    Beside `keras.optimizers.Adam` it

    - counts in updates: the schedule gets `update + 1`, also under gradient accumulation, where
      Keras counts micro-batches, and a moving average of the weights moves only with updates;
    - skips an update whose gradient is not finite and counts it, so that one bad batch does not
      destroy the weights (the schedule goes on);
    - keeps the gradient's norm for display;
    - computes in float32 where variables are float16 or bfloat16, and keeps their moments in
      float32: epsilon and the squares of small gradients are 0 in float16.

    Args:
        d_model: width of the model, for the schedule.
        warmup_steps: updates until the highest rate; 4,000 in the paper.
        learning_rate: another schedule, or a number, in the schedule's place.
        beta_1, beta_2, epsilon: as in the paper.
        global_clipnorm: longest norm of the whole gradient; longer ones are scaled down to it.
        gradient_accumulation_steps: micro-batches per update.
        **kwargs: further arguments of `keras.optimizers.Adam` (use_ema, weight_decay, ...).

    Raises:
        ValueError: without `d_model` and `learning_rate`; for `clipnorm`, `clipvalue`, `amsgrad` or
            `ema_overwrite_frequency`.

    Example:

    ```python
    model.compile(optimizer=PaperAdam(d_model=512, warmup_steps=4000), loss=SmoothedCrossentropy())
    model.optimizer.learning_rate  # the rate of the next update
    model.optimizer.gradient_norm  # of the last one, before clipping
    ```
    """

    def __init__(
        self,
        d_model=None,
        warmup_steps=4000,
        learning_rate=None,
        beta_1=0.9,
        beta_2=0.98,
        epsilon=1e-9,
        name="paper_adam",
        **kwargs,
    ):
        if learning_rate is None:
            if d_model is None:
                raise ValueError(
                    "The paper's schedule needs the model's width: PaperAdam(d_model=512), or give "
                    "a learning_rate."
                )
            learning_rate = PaperSchedule(d_model, warmup_steps)
        if kwargs.get("clipnorm") or kwargs.get("clipvalue"):
            raise ValueError(
                "PaperAdam clips the whole gradient: use global_clipnorm in place of clipnorm or "
                "clipvalue."
            )
        if kwargs.get("amsgrad") or kwargs.get("ema_overwrite_frequency"):
            raise ValueError(
                "PaperAdam has no amsgrad and no ema_overwrite_frequency: leave them out, or use "
                "keras.optimizers.Adam."
            )
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            name=name,
            **kwargs,
        )

    def build(self, var_list):
        if self.built:
            return
        super().build(var_list)
        self.gradient_norm = self.add_variable((), name="gradient_norm")
        self.finite = self.add_variable((), initializer="ones", name="finite")
        self.skipped_updates = self.add_variable((), dtype="int32", name="skipped_updates")
        self.skipped_in_a_row = self.add_variable((), dtype="int32", name="skipped_in_a_row")

    def add_variable(self, *args, aggregation="only_first_replica", dtype=None, **kwargs):
        # All replicas compute the same values; MirroredStrategy wants to be told.
        dtype = _at_least_float32(dtype or keras.config.floatx())
        return super().add_variable(*args, aggregation=aggregation, dtype=dtype, **kwargs)

    @property
    def updates(self):
        """Number of updates so far, skipped ones included."""
        return self.iterations

    def _get_current_learning_rate(self):
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.updates + 1)
        return super()._get_current_learning_rate()

    def _backend_apply_gradients(self, grads, trainable_variables):
        grads = [ops.cast(g, _at_least_float32(g.dtype)) for g in grads]
        super()._backend_apply_gradients(grads, trainable_variables)

    # The gradient is complete, summed over replicas and micro-batches, only in these two hooks;
    # Keras would clip each replica's part.

    def _clip_gradients(self, grads):
        return grads

    def _all_reduce_sum_gradients(self, grads_and_vars):  # TensorFlow
        import tensorflow as tf

        grads, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        # Dense: the gradient of an embedding may list the same row more than once.
        grads = [tf.convert_to_tensor(g) for g in grads]
        return list(zip(self._guard(grads), variables, strict=True))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if keras.backend.backend() != "tensorflow":
            grads = self._guard(grads)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _guard(self, grads):
        """Measures and clips the gradient, and puts zeros in its place where it is not finite."""
        grads = [ops.convert_to_tensor(g) for g in grads]
        norm = ops.sqrt(sum(_sum_of_squares(g) for g in grads))
        finite = ops.isfinite(norm)
        skipped = ops.cast(ops.logical_not(finite), "int32")
        self.gradient_norm.assign(norm)
        self.finite.assign(ops.cast(finite, "float32"))
        self.skipped_updates.assign_add(skipped)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + skipped) * skipped)
        scale = 1.0
        if self.global_clipnorm:
            scale = ops.minimum(1.0, self.global_clipnorm / ops.maximum(norm, 1e-12))

        def scaled():
            return [g * ops.cast(scale, g.dtype) for g in grads] if self.global_clipnorm else grads

        if not _is_plain_tensorflow():
            return [ops.where(finite, g, ops.zeros_like(g)) for g in scaled()]
        # A choice between lists of tensors: no gradient is read or written for it.
        return ops.cond(finite, scaled, lambda: [ops.zeros_like(g) for g in grads])

    def _apply_weight_decay(self, variables):
        """Part of `update_step`, so that a skipped update decays nothing."""

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate):
        """TensorFlow: Adam as one operation a variable, from scalars that all of them share."""
        if not _is_plain_tensorflow():
            super()._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)
            return
        import tensorflow as tf

        scalars = {}
        for gradient, variable in grads_and_vars:
            dtype = variable.dtype
            if _at_least_float32(dtype) != keras.backend.standardize_dtype(dtype):
                self.update_step(gradient, variable, learning_rate)
                continue
            if dtype not in scalars:
                finite, step = ops.cast(self.finite, dtype), ops.cast(self.iterations + 1, dtype)
                scalars[dtype] = {
                    "lr": finite * ops.cast(learning_rate, dtype),
                    "beta1_power": ops.power(self.beta_1, step),
                    "beta2_power": ops.power(self.beta_2, step),
                    # Decays of 1 leave the moments of a skipped update alone.
                    "beta1": 1 - finite * (1 - self.beta_1),
                    "beta2": 1 - finite * (1 - self.beta_2),
                    "epsilon": tf.constant(self.epsilon, dtype),
                }
            index = self._get_variable_index(variable)
            if self.weight_decay and self._use_weight_decay(variable):
                rate = scalars[dtype]["lr"] * self.weight_decay
                self.assign_sub(variable, variable * rate)
            tf.raw_ops.ResourceApplyAdam(
                var=_handle(variable),
                m=_handle(self._momentums[index]),
                v=_handle(self._velocities[index]),
                grad=ops.cast(gradient, dtype),
                **scalars[dtype],
            )

    def update_step(self, gradient, variable, learning_rate):
        """Adam, with every change times `finite`: 0 leaves weights and moments as they are."""
        m = self._momentums[self._get_variable_index(variable)]
        v = self._velocities[self._get_variable_index(variable)]
        dtype = m.dtype  # of a float16 variable float32
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
        for variable, average in zip(
            trainable_variables, self._model_variables_moving_average, strict=True
        ):
            value = ops.cast(ops.convert_to_tensor(variable), average.dtype)
            average.assign_add((value - average) * ops.cast(share, average.dtype))

    def _overwrite_model_variables_with_average_value(self, trainable_variables):
        for variable, average in zip(
            trainable_variables, self._model_variables_moving_average, strict=True
        ):
            variable.assign(ops.cast(ops.convert_to_tensor(average), variable.dtype))

    def finalize_variable_values(self, var_list):
        if int(self.updates - self.skipped_updates) > 0:  # else there is no average yet
            super().finalize_variable_values(var_list)


def _at_least_float32(dtype):
    dtype = keras.backend.standardize_dtype(dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def _sum_of_squares(gradient):
    gradient = ops.cast(gradient, "float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return 2 * tf.nn.l2_loss(gradient)  # reads it once and writes nothing
    return ops.sum(ops.square(gradient))


def _is_plain_tensorflow():
    """Whether variables are TensorFlow's own; those of a strategy have no one handle."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()


def _handle(variable):
    # The trainable variables come here as TensorFlow's, the moments as Keras'.
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


@keras.saving.register_keras_serializable(package="keras_transformer")
class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' dynamic loss scale for float16 around `PaperAdam`, with skipped updates counted.

    Keras skips updates whose scaled gradient overflows without a trace, and the schedule stands
    still while the data go on. Here a skipped update is an update: it counts in
    `skipped_updates`, and in the schedule.

    Args:
        inner_optimizer: a `PaperAdam` without gradient accumulation.
        **kwargs: of `keras.optimizers.LossScaleOptimizer`.

    Raises:
        ValueError: under gradient accumulation, where Keras would lose single micro-batches.

    Example:

    ```python
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    model.compile(optimizer=LossScale(PaperAdam(d_model=512)), loss=SmoothedCrossentropy())
    ```
    """

    def __init__(self, inner_optimizer, **kwargs):
        if inner_optimizer.gradient_accumulation_steps:
            raise ValueError(
                "float16 with gradient accumulation would lose single micro-batches: use bfloat16, "
                "or larger batches without accumulation."
            )
        super().__init__(inner_optimizer, **kwargs)

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
