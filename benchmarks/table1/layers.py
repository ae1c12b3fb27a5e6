"""The rows of the paper's Table 1 as Keras layers. All map n vectors of width d to n vectors."""

import keras
from keras import ops

from keras_transformer.layers import MultiHeadAttention
from keras_transformer.ops.attention import attend
from keras_transformer.ops.masks import Masks

HEAD = 64  # the paper's width per head, so there are d / 64 heads


def heads(d):
    return max(1, d // HEAD)


class Core(keras.layers.Layer):
    """The part of `MultiHeadAttention` between its projections: `softmax(Q K^T / sqrt(d_k)) V`.

    The term n^2 d of Table 1 counts this part.

    Args:
        d: Width of all heads together.
        neighbourhood: r. With None a position sees all positions.

    Call arguments:
        queries, keys, values: [1, H, n, K].

    Returns:
        [1, H, n, K], or with a neighbourhood [H n / r, 1, r, K].
    """

    def __init__(self, d, neighbourhood=None, **kwargs):
        super().__init__(**kwargs)
        self.neighbourhood = neighbourhood
        self.built = True

    def call(self, queries, keys, values):
        if self.neighbourhood is None:
            key_mask = attention_mask = None
        else:
            reach = self.neighbourhood
            queries, keys, values = (each[0] for each in (queries, keys, values))  # [H, n, K]
            key_mask, attention_mask = window_masks(queries, reach)
            queries = blocks(queries, reach)[:, None]
            keys, values = (windows(each, reach)[:, None] for each in (keys, values))
        masks = Masks(key_mask, None if attention_mask is None else attention_mask[None, None])
        return attend(queries, keys, values, masks)[0]


class RestrictedAttention(keras.layers.Layer):
    """Self-attention restricted to a neighbourhood (section 4): position i sees |i - j| <= r / 2.

    A block of r queries attends to its window of 2 r keys, and a mask hides the distant ones. That
    takes r n d, times two because masked keys are computed too. Every position lies in two windows,
    so it is projected to keys and values twice.

    Args:
        d: Width.
        neighbourhood: r, an even number. n must be a multiple of it.

    Call arguments:
        x: [B, n, d].
    """

    def __init__(self, d, neighbourhood, **kwargs):
        super().__init__(**kwargs)
        self.neighbourhood = neighbourhood
        self.attention = MultiHeadAttention(d, heads(d))

    def build(self, shape):
        self.attention.build(shape)
        self.built = True

    def call(self, x):
        key_mask, attention_mask = window_masks(x, self.neighbourhood)
        mixed = self.attention(
            blocks(x, self.neighbourhood),
            windows(x, self.neighbourhood),
            key_mask=key_mask,
            attention_mask=attention_mask,
        )
        return ops.reshape(mixed, ops.shape(x))


def blocks(x, size):
    """Cuts [B, n, W] into blocks [B n / size, size, W]."""
    return ops.reshape(x, (-1, size, x.shape[-1]))


def windows(x, size):
    """Adds half a block before and after every block: [B, n, W] -> [B n / size, 2 size, W]."""
    padded = ops.pad(x, [(0, 0), (size // 2, size // 2), (0, 0)])
    return ops.concatenate([blocks(padded[:, :-size], size), blocks(padded[:, size:], size)], 1)


def window_masks(x, size):
    """Returns the real keys per window [B n / size, 2 size] and who sees whom [size, 2 size]."""
    real = windows(ops.ones_like(x[..., :1]), size)[..., 0] > 0
    distance = ops.arange(2 * size)[None] - size // 2 - ops.arange(size)[:, None]
    return real, ops.abs(distance) <= size // 2


ROWS = {
    "attention core": lambda d, r, k: Core(d),
    "attention layer": lambda d, r, k: MultiHeadAttention(d, heads(d)),
    "restricted core": lambda d, r, k: Core(d, r),
    "restricted layer": lambda d, r, k: RestrictedAttention(d, r),
    "recurrent": lambda d, r, k: keras.layers.SimpleRNN(d, return_sequences=True),
    "LSTM": lambda d, r, k: keras.layers.LSTM(d, return_sequences=True),
    "convolution": lambda d, r, k: keras.layers.Conv1D(d, k, padding="same"),
    "separable": lambda d, r, k: keras.layers.SeparableConv1D(d, k, padding="same"),
}


def make(row, d, neighbourhood, kernel):
    """Returns the built layer of a row, of width d."""
    made = ROWS[row](d, neighbourhood, kernel)
    if not made.built:
        made.build((None, None, d))
    return made


def input_shapes(row, n, d):
    """Returns the shapes of the inputs of a row's layer."""
    if row.endswith("core"):
        return [(1, heads(d), n, d // heads(d))] * 3
    return [(1, n, d)]
