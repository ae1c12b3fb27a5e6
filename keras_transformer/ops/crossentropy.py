"""Cross-entropy of integer labels, with few passes over the logits.

Over a vocabulary each pass costs as much as a layer of the model.
"""

import functools

import keras
from keras import ops

from keras_transformer.ops import Tensor
from keras_transformer.ops.compilation import compiled_by_xla
from keras_transformer.ops.gradients import with_gradient


def label_logits(labels: Tensor, logits: Tensor) -> Tensor:
    """The logit of each label: [B, T] integers and [B, T, V] -> [B, T]."""
    places = ops.maximum(ops.cast(labels, "int32"), 0)[..., None]
    return ops.take_along_axis(logits, places, axis=-1)[..., 0]


def _of_classes(labels, logits):
    """A factor that is NaN where a label is no class: it is seen, and the update is skipped."""
    is_class = ops.logical_and(labels >= 0, labels < logits.shape[-1])
    return ops.where(is_class, 1.0, float("nan"))


def plain_token_nats(labels: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Label-smoothed cross-entropy of each label in nats (section 5.4): [B, T].

    ```
    loss = -(1 - eps) log p(label) - eps / V * sum_v log p(v)
    ```
    """
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    of_all = ops.mean(log_probs, axis=-1)
    return -(1 - label_smoothing) * label_logits(labels, log_probs) - label_smoothing * of_all


def token_nats(labels: Tensor, logits: Tensor) -> Tensor:
    """Same as `plain_token_nats` without smoothing; a training step shares the loss's softmax."""
    logits = ops.cast(logits, "float32")
    if _passes_are_fused():
        highest, total = _exponentials(logits)
        nats = ops.log(total) + (highest - label_logits(labels, logits))
    else:
        nats = _nats_by_softmax(labels, logits, ops.softmax(logits, axis=-1))
    return nats * _of_classes(labels, logits)


def smoothed_token_nats(labels: Tensor, logits: Tensor, label_smoothing: float) -> Tensor:
    """Same as `plain_token_nats`, with its gradient written out.

    ```
    loss        = log sum_v exp(logit_v) - (1 - eps) logit_label - eps / V * sum_v logit_v
    d/d logit_v = softmax_v - eps / V - (1 - eps) [v = label]
    ```

    Automatic differentiation would make several more tensors of the logits' size.
    """
    logits = ops.cast(logits, "float32")
    labels = ops.cast(labels, "int32")
    make = _by_exponentials if _passes_are_fused() else _by_softmax
    nats = with_gradient(make(ops.maximum(labels, 0), label_smoothing))(logits)
    return nats * _of_classes(labels, logits)


def _passes_are_fused():
    """Whether a compiler fuses operations on the same elements. PyTorch takes the same way."""
    return keras.backend.backend() != "tensorflow" or compiled_by_xla()


def _by_exponentials(labels, label_smoothing):
    """The loss of logits; one fused pass over the logits makes its gradient."""

    def loss(logits):
        vocabulary_size = logits.shape[-1]
        uniform = label_smoothing / vocabulary_size
        highest, total = _exponentials(logits)
        at_label = label_logits(labels, logits)
        nats = ops.log(total) + (highest - at_label)
        if label_smoothing:
            nats = nats + label_smoothing * (at_label - ops.mean(logits, axis=-1))

        def gradient(upstream):
            chosen = ops.equal(labels[..., None], ops.arange(vocabulary_size, dtype="int32"))
            wanted = ops.where(chosen, 1 - label_smoothing + uniform, uniform)
            probabilities = ops.exp(logits - highest[..., None]) / total[..., None]
            return (probabilities - wanted) * upstream[..., None]

        return nats, gradient

    return loss


def _exponentials(logits):
    """The highest logit and the sum of exp(logit - highest), both [B, T]."""
    highest = ops.max(logits, axis=-1)
    return highest, ops.sum(ops.exp(logits - highest[..., None]), axis=-1)


def _by_softmax(labels, label_smoothing):
    """The loss of logits on TensorFlow; the backward pass uses the softmax of the forward pass."""
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
    """The gradient by the logits [R, V], from softmax [R, V], labels [R] and upstream gradient [R].

    The gradient is updated in place at the label positions, to avoid a copy. It is a separate
    tf.function because TensorFlow merges equal tensors inside a graph; an in-place update would
    then corrupt the other users.
    """
    import tensorflow as tf

    def slopes(probabilities, labels, upstream):
        rows, vocabulary_size = tf.unstack(tf.shape(probabilities))
        tf.debugging.assert_less(
            tf.size(probabilities, out_type=tf.int64),
            tf.constant(2**31, tf.int64),
            message="The logits of a step are 2^31 numbers or more. Make its batches smaller.",
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
    """-log(probability) of each label, [B, T]; exact also where the probability underflows.

    Losses and metrics all begin with the same softmax of the same logits, so that a compiled
    training step computes it once.
    """
    chosen = label_logits(labels, probabilities)
    safe = chosen > 1e-30
    nats = -ops.log(ops.where(safe, chosen, 1.0))

    def with_exact():
        exact = ops.logsumexp(logits, axis=-1) - label_logits(labels, logits)
        return ops.where(safe, nats, exact)

    return ops.cond(ops.all(safe), lambda: nats, with_exact)
