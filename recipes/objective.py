"""What several recipes train with: the loss and metrics of tokens, and the cosine schedule."""

import keras

import keras_transformer as kt


def cosine(
    updates: int, peak: float, warmup: int, alpha: float = 0.0
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a rate that rises to `peak` for `warmup` updates, and falls to `alpha` times that."""
    return keras.optimizers.schedules.CosineDecay(
        0.0, updates - warmup, alpha=alpha, warmup_target=peak, warmup_steps=warmup
    )


def compile_for_tokens(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    label_smoothing: float = 0.1,
    ignore_class: int | None = 0,
    devices: int = 1,
) -> None:
    """Compiles a model of logits: smoothed cross-entropy, and nats and accuracy per token."""
    model.compile(
        optimizer=optimizer,
        loss=kt.losses.SmoothedCrossentropy(label_smoothing, ignore_class=ignore_class),
        weighted_metrics=[
            kt.metrics.NatsPerToken(ignore_class=ignore_class),
            kt.metrics.TokenAccuracy(ignore_class=ignore_class),
        ],
        jit_compile=jit(devices),
    )


def jit(devices: int) -> bool | str:
    """Returns Keras' `jit_compile`: TensorFlow's several devices train without XLA."""
    return False if devices > 1 and keras.backend.backend() == "tensorflow" else "auto"
