"""The training objective: label-smoothed cross-entropy in nats per target token (section 5.4)."""

import functools

import keras
from keras import ops

from keras_transformer.ops.compilation import compiled_by_xla
from keras_transformer.ops.labels import counts, integer_labels, label_weights


def label_logits(labels, logits):
    """The logit of each label: [B, T] integers and [B, T, V] -> [B, T]."""
    return ops.take_along_axis(logits, ops.cast(labels, "int32")[..., None], axis=-1)[..., 0]


def token_nats(labels, logits):
    """Cross-entropy of each label in nats: [B, T] integers and [B, T, V] logits -> [B, T]."""
    logits = ops.cast(logits, "float32")
    if _passes_are_fused():
        highest, total = _exponentials(logits)
        return ops.log(total) + (highest - label_logits(labels, logits))
    return _nats_by_softmax(labels, logits, ops.softmax(logits, axis=-1))


def smoothed_token_nats(labels, logits, label_smoothing):
    """Label-smoothed cross-entropy in nats, [B, T], with its gradient written out.

    ```
    loss        = log sum_v exp(logit_v) - (1 - eps) logit_label - eps / V * sum_v logit_v
    d/d logit_v = softmax_v - eps / V - (1 - eps) [v = label]
    ```

    Automatic differentiation would make several more tensors of the logits' size.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "int32")
    make = _fused if _passes_are_fused() else _by_softmax
    return ops.custom_gradient(make(labels, label_smoothing))(logits)


def _passes_are_fused():
    """Whether XLA compiles this, which fuses operations by element. (torch takes the same way.)"""
    return keras.backend.backend() != "tensorflow" or compiled_by_xla()


def _fused(labels, label_smoothing):
    """The loss of logits, whose gradient is made from the logits in one pass."""

    def loss(logits):
        vocabulary_size = logits.shape[-1]
        uniform = label_smoothing / vocabulary_size
        highest, total = _exponentials(logits)
        at_label = label_logits(labels, logits)
        nats = ops.log(total) + (highest - at_label)
        if label_smoothing:
            nats = nats + label_smoothing * (at_label - ops.mean(logits, axis=-1))

        def gradient(*args, upstream=None):
            upstream = (args[0] if upstream is None else upstream)[..., None]  # [B, T, 1]
            chosen = ops.equal(labels[..., None], ops.arange(vocabulary_size, dtype="int32"))
            wanted = ops.where(chosen, 1 - label_smoothing + uniform, uniform)
            probabilities = ops.exp(logits - highest[..., None]) / total[..., None]
            return (probabilities - wanted) * upstream

        return nats, gradient

    return loss


def _exponentials(logits):
    """The highest logit and the sum of exp(logit - highest), [B, T] each: softmax's parts."""
    highest = ops.max(logits, axis=-1)
    return highest, ops.sum(ops.exp(logits - highest[..., None]), axis=-1)


def _by_softmax(labels, label_smoothing):
    """TensorFlow's loss of logits; the softmax of the forward pass serves the backward pass."""
    import tensorflow as tf

    def loss(logits):
        vocabulary_size = logits.shape[-1]
        probabilities = ops.softmax(logits, axis=-1)
        nats = _nats_by_softmax(labels, logits, probabilities)
        if label_smoothing:
            mean = ops.mean(logits, axis=-1)
            nats = nats + label_smoothing * (label_logits(labels, logits) - mean)

        def gradient(upstream):
            slopes = _slopes(label_smoothing)(
                tf.reshape(probabilities, (-1, vocabulary_size)),
                tf.reshape(labels, (-1,)),
                tf.reshape(upstream, (-1,)),
            )
            return tf.reshape(slopes, tf.shape(logits))

        return nats, gradient

    return loss


@functools.cache
def _slopes(label_smoothing):
    """The gradient by the logits [R, V], of softmax [R, V], labels [R] and the loss' gradient [R].

    What it makes of the softmax is changed at the labels where it lies, and not copied for that. So
    it is a function of its own: within the step TensorFlow gives one tensor to all who compute the
    same, and would change it for each of them.
    """
    import tensorflow as tf

    def slopes(probabilities, labels, upstream):
        rows, vocabulary_size = tf.unstack(tf.shape(probabilities))
        tf.debugging.assert_less(
            tf.size(probabilities, out_type=tf.int64),
            tf.constant(2**31, tf.int64),
            message="The logits of a step are 2^31 numbers or more: make its batches smaller.",
        )
        uniform = label_smoothing / tf.cast(vocabulary_size, "float32")
        slopes = (probabilities - uniform) * upstream[:, None]
        slopes = tf.raw_ops.InplaceAdd(
            x=tf.reshape(slopes, (-1,)),
            i=tf.range(rows) * vocabulary_size + labels,
            v=upstream * (label_smoothing - 1),
        )
        return tf.reshape(slopes, tf.shape(probabilities))

    return tf.function(
        slopes,
        input_signature=[
            tf.TensorSpec((None, None), "float32"),
            tf.TensorSpec((None,), "int32"),
            tf.TensorSpec((None,), "float32"),
        ],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def _nats_by_softmax(labels, logits, probabilities):
    """-log(probability) of each label, [B, T], exact also where the probability underflows.

    Losses and metrics all begin with the same softmax of the same logits, so that a compiled
    training step computes it once: over a vocabulary each pass costs as much as a layer.
    """
    chosen = label_logits(labels, probabilities)
    safe = chosen > 1e-30
    nats = -ops.log(ops.where(safe, chosen, 1.0))

    def with_exact():
        exact = ops.logsumexp(logits, axis=-1) - label_logits(labels, logits)
        return ops.where(safe, nats, exact)

    return ops.cond(ops.all(safe), lambda: nats, with_exact)


@keras.saving.register_keras_serializable(package="keras_transformer")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy with label smoothing on integer labels (section 5.4), in nats.

    ```
    loss_t = -(1 - eps) log p(label_t) - eps / V * sum_v log p(v)
    ```

    The smoothing mass is spread over the whole vocabulary (Szegedy et al., 2016). No [B, T, V]
    targets are made. The result is the sum of `loss_t * weight_t`: with the weights of
    `kt.data`, 1 / (target tokens of the update), that is the mean over real target tokens, and
    micro-batches and replicas add up exactly. Without weights it is the mean over the labels that
    are not `ignore_class`, of all replicas together: padding counts nowhere.

    Args:
        label_smoothing: eps; 0.1 in the paper. Below 1.
        ignore_class: The label of padding; any integer, for example 0, 255 or -100. None: every
            label counts, unless Keras' implicit mask of the logits excludes its position.

    Call arguments:
        y_true: integer labels [B, T] or [B, T, 1].
        y_pred: logits [B, T, V].
        sample_weight: [B, T], or [B] with one weight for each row, or None.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: for a smoothing outside 0 <= eps < 1, or one-hot labels.

    Example:

    ```python
    loss = SmoothedCrossentropy(label_smoothing=0.1)
    loss(np.array([[3, 1, 0]]), np.zeros((1, 3, 5)))  # log 5 = 1.609
    ```
    """

    def __init__(
        self, label_smoothing=0.1, ignore_class=0, name="smoothed_crossentropy", dtype=None
    ):
        super().__init__(name=name, reduction="sum", dtype=dtype)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is in [0, 1), got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        self.ignore_class = ignore_class

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras would first make floats of the labels, and multiply by the mask of the logits.
        y_pred = ops.convert_to_tensor(y_pred)
        labels = integer_labels(y_true, y_pred)
        real = counts(labels, y_pred, self.ignore_class)
        weights = label_weights(labels, real, sample_weight)
        return ops.cast(ops.sum(self.call(labels, y_pred) * weights), self.dtype)

    def call(self, y_true, y_pred):
        real = counts(y_true, y_pred, self.ignore_class)
        labels = ops.where(real, y_true, 0)  # -100 is no index of a logit
        nats = smoothed_token_nats(labels, y_pred, self.label_smoothing)  # [B, T]
        return nats * ops.cast(real, nats.dtype)

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype,
            "label_smoothing": self.label_smoothing,
            "ignore_class": self.ignore_class,
        }
