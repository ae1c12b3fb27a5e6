"""This package: `Transformer` with `fit`, compiled as the command `train` compiles it."""

import keras
from keras_fit import answers

from keras_transformer import losses, metrics, models, optimizers
from keras_transformer.ops import memory


def prepare(config, jit_compile="auto"):
    memory.keep_freed_memory()
    if config["dtype"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    model = models.Transformer(config["vocabulary_size"], **config["size"])
    model.compile(
        optimizer=optimizers.PaperAdam(config["size"]["d_model"], warmup_steps=4000),
        loss=losses.SmoothedCrossentropy(label_smoothing=0.1),
        weighted_metrics=[metrics.NatsPerToken(), metrics.TokenAccuracy()],
        jit_compile=jit_compile,
    )
    return answers(model, config["batches"]), {"parameters": model.count_params()}
