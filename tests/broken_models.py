"""Models, losses and searches that make one usual mistake, for the tests of the certificates.

Every function or class makes one mistake, which its docstring names. Everything else is right. The
sizes are small.
"""

import keras
import numpy as np
from keras import ops

from keras_transformer import layers, models

V, D = 19, 14
BLOCK = {"d_model": D, "num_heads": 2, "d_ff": 17, "dropout": 0.1}


def mask_of_source(source_ids, target_ids):
    return layers.padding_mask(source_ids)


def sequence_to_sequence(encoder=None, decoder=None, memory_mask=mask_of_source, swap=False):
    """Builds a small model that is right, except for the parts that are passed."""
    names = ("source_ids", "target_ids")
    ids = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    source_ids, target_ids = (ids[name] for name in (names[::-1] if swap else names))
    embedding = layers.PositionalEmbedding(V, D, dropout=0.1)
    memory = (encoder or layers.EncoderLayer(**BLOCK))(embedding(source_ids))
    mask = memory_mask(source_ids, target_ids)
    decoder = decoder or layers.DecoderLayer(**BLOCK)
    x = decoder(embedding(target_ids), memory, memory_mask=mask)
    return keras.Model(ids, embedding(x, reverse=True))


# --- encoder and decoder


def swapped_inputs():
    """The encoder reads the target and the decoder the source."""
    return sequence_to_sequence(swap=True)


def source_mask_from_target(encoder=None):
    """The padding mask of the source is made from the target ids."""
    return sequence_to_sequence(
        encoder, memory_mask=lambda _, target_ids: layers.padding_mask(target_ids)
    )


class _NotCausal(layers.DecoderLayer):
    def call(self, inputs, memory=None, inputs_mask=None, memory_mask=None, training=None):
        x = layers.EncoderLayer.call(self, inputs, mask=inputs_mask, training=training)
        update = self.cross_attention(x, memory, key_mask=memory_mask)
        return self.join_cross_attention(x, update, training=training)


def no_causal_mask():
    """The decoder has an encoder's self-attention, which sees the whole target."""
    return sequence_to_sequence(decoder=_NotCausal(**BLOCK))


class MaskOfOneTensor(keras.layers.Layer):
    """Its argument `mask` fits a call with one tensor. With two, Keras fills in other masks."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, inputs, shift=0, mask=None):
        return inputs * (1 if mask is None else ops.cast(mask, "float32")[..., None]) + shift


class ImplicitMaskWins(MaskOfOneTensor):
    """It prefers the mask that Keras fills in to the mask that is passed."""

    def call(self, inputs, shift=0, mask=None, inputs_mask=None):
        return super().call(inputs, shift, mask if inputs_mask is None else inputs_mask)


class _CausalAtInference(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(D, 2, dropout=0.1)

    def build(self, shape):
        self.attention.build(shape)

    def call(self, inputs, mask=None, training=None):
        return inputs + self.attention(inputs, causal=not training, key_mask=mask)


def causal_mask_lost_in_training():
    """In training the layer takes another path, which does not get the causal mask."""
    target_ids = keras.Input((None,), dtype="int32")
    embedding = layers.PositionalEmbedding(V, D)
    x = _CausalAtInference()(embedding(target_ids))
    return keras.Model(target_ids, embedding(x, reverse=True))


class _WithoutMemory(layers.DecoderLayer):
    def call(self, inputs, memory=None, inputs_mask=None, memory_mask=None, training=None):
        return super().call(inputs, 0 * memory, inputs_mask, memory_mask, training=training)


def ignores_its_source():
    """The memory never arrives. It is a language model that reads no source and still learns."""
    return sequence_to_sequence(decoder=_WithoutMemory(**BLOCK))


class _BatchNorm(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.supports_masking = True
        self.layer = layers.EncoderLayer(**BLOCK)
        self.norm = keras.layers.BatchNormalization(axis=-1)

    def build(self, shape):
        self.layer.build(shape)
        self.norm.build(shape)

    def call(self, inputs, training=None):
        return self.norm(self.layer(inputs, training=training), training=training)


def norm_over_the_batch():
    """Batch normalisation instead of layer normalisation: in training, rows see each other."""
    return sequence_to_sequence(encoder=_BatchNorm())


class _BatchStatistics(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)


def centred_over_the_batch():
    """A mean over the batch, also at inference: a result depends on the other rows."""
    return sequence_to_sequence(encoder=_BatchStatistics())


class _DropoutAlwaysOn(keras.layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


def dropout_at_inference():
    """A layer has `training=True` built in, so every call gives another translation."""
    return sequence_to_sequence(encoder=_DropoutAlwaysOn(0.3))


# --- padding


def reads_source_padding():
    """The memory's mask is lost: the decoder attends to padding, so its length matters."""
    return sequence_to_sequence(
        memory_mask=lambda source_ids, _: ops.ones_like(source_ids, dtype="bool")
    )


def mean_over_padding():
    """A classifier that divides by the width of the batch instead of the number of tokens."""
    ids = keras.Input((None,), dtype="int32")
    x = layers.PositionalEmbedding(V, D)(ids)
    return keras.Model(ids, keras.layers.Dense(3)(ops.mean(x, axis=1)))


class _InfiniteMask(keras.layers.Layer):
    """Self-attention with -inf for masked scores, and optionally a repair of the resulting NaN."""

    def __init__(self, repair):
        super().__init__()
        self.supports_masking = True
        self.repair = repair
        self.query = keras.layers.Dense(D)

    def build(self, shape):
        self.query.build(shape)

    def call(self, inputs, mask=None):
        scores = ops.matmul(self.query(inputs), ops.transpose(inputs, (0, 2, 1)))
        scores = scores + ops.where(mask, 0.0, -np.inf)[:, None]
        weights = ops.softmax(scores, axis=-1)
        if self.repair:
            weights = ops.where(ops.isnan(weights), 0.0, weights)
        return ops.matmul(weights, inputs)


def infinite_mask(repair=False):
    """Scores of padding are -inf. A row with only padding is NaN; if repaired, its gradient is."""
    ids = keras.Input((None,), dtype="int32")
    embedding = layers.PositionalEmbedding(V, D)
    return keras.Model(ids, embedding(_InfiniteMask(repair)(embedding(ids)), reverse=True))


# --- caches


class _IndexLost(models.Transformer):
    def decode(self, target_ids, memory, memory_mask, cache=None, index=0):
        return super().decode(target_ids, memory, memory_mask, cache)


def index_lost():
    """Cached decoding forgets the position: every token is embedded and written at 0."""
    return _IndexLost(V, num_layers=1, **BLOCK)


class _SeesAll(layers.MultiHeadAttention):
    def call(self, query, *args, cache=None, index=None, **options):
        found = super().call(query, *args, cache=cache, index=index, **options)
        if index is None or query.shape[1] > 1:
            return found
        return super().call(query, cache=found[1])  # as if the cache were a memory


def cache_without_mask():
    """The query of a step gets no causal mask, so it attends to empty cache positions too."""
    model = models.Transformer(V, num_layers=1, **BLOCK)
    model.decoder.layers[0].self_attention.__class__ = _SeesAll
    return model


class _CacheAdded(models.Transformer):
    def decode(self, target_ids, memory, memory_mask, cache=None, index=0):
        result = super().decode(target_ids, memory, memory_mask, cache, index)
        if cache is None:
            return result
        logits, new = result
        keys, values = cache["self"][0]
        here = ops.cast(ops.arange(values.shape[2]) == index, "float32")
        new_keys, new_values = new["self"][0]
        new["self"] = [(new_keys + here * keys, new_values + here[:, None] * values)]
        return logits, new


def cache_added():
    """New keys are added to the old content of the cache, which is right only while that is 0."""
    return _CacheAdded(V, num_layers=1, **BLOCK)


# --- wiring


class _OverriddenInVain(models.Transformer):
    def wire(self, inputs):
        plain = models.Transformer
        memory, mask = plain.encode(self, inputs["source_ids"])
        return plain.decode(self, inputs["target_ids"], memory, mask)

    def encode(self, source_ids):
        memory, mask = super().encode(source_ids)
        return 2 * memory, mask


def overridden_in_vain():
    """The graph uses the base class' `encode` and `decode`. Overridden ones serve only a search."""
    return _OverriddenInVain(V, num_layers=1, **BLOCK)


@keras.saving.register_keras_serializable(package="broken")
class RawKernel(keras.layers.Layer):
    """Multiplies by the kernel of a Dense layer, which holds integers after quantisation."""

    def build(self, shape):
        self.dense = keras.layers.Dense(D)
        self.dense.build(shape)

    def call(self, inputs):
        return ops.matmul(inputs, ops.cast(self.dense.kernel, inputs.dtype))


# --- files


@keras.saving.register_keras_serializable(package="broken")
class Forgetful(keras.layers.Layer):
    """Its configuration lacks the scale and the dropout rate."""

    def __init__(self, scale=1.0, dropout=0.1, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.dropout = keras.layers.Dropout(dropout)

    def call(self, inputs, training=None):
        return self.dropout(self.scale * inputs, training=training)

    def get_config(self):
        return super().get_config()


class Unregistered(keras.layers.Layer):
    """A class that a saved file names and that Keras cannot find."""

    def call(self, inputs):
        return 2 * inputs


# --- losses


def mean_over_positions(labels, logits):
    """Padding is left out of the sum, but its positions count in the divisor."""
    nats = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return ops.mean(nats * ops.cast(ops.not_equal(labels, 0), nats.dtype))


def mean_of_sentences(labels, logits):
    """A mean of sentence means: tokens of long sentences weigh less, and padding rows count."""
    real = ops.cast(ops.not_equal(labels, 0), "float32")
    nats = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return ops.mean(ops.sum(nats * real, axis=1) / ops.maximum(ops.sum(real, axis=1), 1.0))


def divided_by_no_token(labels, logits):
    """Right, except for a batch with only padding, which gives 0 / 0."""
    real = ops.cast(ops.not_equal(labels, 0), "float32")
    nats = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return ops.sum(nats * real) / ops.sum(real)


# --- searches


def greedy(model, start_id, end_id, length, mistake=None):
    """Greedy search that decodes the whole prefix again at every step, with one of three mistakes.

    `"keeps scoring"`: the score of a finished row still grows. `"goes on"`: its ids continue as
    well. `"other length"`: the length penalty counts the start token.
    """

    def search(source_ids):
        ids = np.full((len(source_ids), 1), start_id, "int32")
        scores, done = np.zeros(len(source_ids)), np.zeros(len(source_ids), bool)
        for step in range(length):
            logits = model({"source_ids": source_ids, "target_ids": ids})[:, -1]
            log_probs = ops.convert_to_numpy(ops.log_softmax(ops.cast(logits, "float32"))).copy()
            log_probs[:, [0, start_id]] = -np.inf
            chosen = log_probs.argmax(axis=-1)
            if step + 1 == length:
                chosen[:] = end_id
            gain = log_probs[np.arange(len(chosen)), chosen]
            scores += gain if mistake == "keeps scoring" else np.where(done, 0.0, gain)
            new = chosen if mistake == "goes on" else np.where(done, 0, chosen)
            ids = np.concatenate([ids, new[:, None].astype("int32")], axis=1)
            done |= chosen == end_id
        lengths = (ids[:, 1:] != 0).sum(axis=1) + (mistake == "other length")
        return ids[:, 1:], scores / lengths

    return search
