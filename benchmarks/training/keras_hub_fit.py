"""The same model from KerasHub's layers, trained with `fit` as in KerasHub's examples.

Its embedding has no scale and its attention has biases. The loss has no label smoothing, and there
are no metrics. Keras has no smoothed cross-entropy for integer labels, and one-hot labels would
take more time.
"""

import keras
import keras_hub
from keras_fit import answers


def prepare(config):
    if config["dtype"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    size = config["size"]
    block = {
        "intermediate_dim": size["d_ff"],
        "num_heads": size["num_heads"],
        "dropout": size["dropout"],
        "activation": "relu",
        "layer_norm_epsilon": 1e-6,
    }
    source_ids = keras.Input((None,), dtype="int32", name="source_ids")
    target_ids = keras.Input((None,), dtype="int32", name="target_ids")
    embedding = keras_hub.layers.ReversibleEmbedding(
        config["vocabulary_size"], size["d_model"], tie_weights=True, mask_zero=True
    )

    def embed(ids):
        x = embedding(ids)
        x = x + keras_hub.layers.SinePositionEncoding()(x)
        return keras.layers.Dropout(size["dropout"])(x)

    mask = keras.ops.not_equal(source_ids, 0)
    target_mask = keras.ops.not_equal(target_ids, 0)
    memory = embed(source_ids)
    for _ in range(size["num_layers"]):
        memory = keras_hub.layers.TransformerEncoder(**block)(memory, padding_mask=mask)
    x = embed(target_ids)
    for _ in range(size["num_layers"]):
        x = keras_hub.layers.TransformerDecoder(**block)(
            x, memory, decoder_padding_mask=target_mask, encoder_padding_mask=mask
        )
    logits = embedding(x, reverse=True)
    model = keras.Model({"source_ids": source_ids, "target_ids": target_ids}, logits)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4, beta_2=0.98, epsilon=1e-9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
    )
    return answers(model, config["batches"]), {"parameters": model.count_params()}
