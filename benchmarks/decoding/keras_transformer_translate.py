"""This package: `Translator`, called as users call it.

Settings: `batch_size` is that of `n_best`. `long_file` compiles more widths and searches that drop
finished rows; a translator does so by itself once a file is long enough to repay it.
"""

import math

import keras
import numpy as np
from digits import Digits
from loop import answers, load

from keras_transformer.decoding import Sampling, shapes
from keras_transformer.decoding.translator import Translator


class Fixed(Translator):
    """Translations of a fixed number of tokens, by a model that never chooses the end itself."""

    def __init__(self, model, tokenizer, tokens):
        super().__init__(model, tokenizer)
        self.tokens = tokens

    def batch(self, *arguments):
        source_ids, limits = super().batch(*arguments)
        # Changes only the limits, so that the search reserves as much memory as usual. A limit of 1
        # belongs to a row that only fills up the batch.
        return source_ids, np.where(limits > 1, self.tokens, limits).astype(limits.dtype)


def prepare(config):
    workload = load(config["folder"])
    model = keras.models.load_model(f"{config['folder']}/model.keras", compile=False)
    if "weights" in config:
        model.quantize(config["weights"])
    digits = Digits(model.target_embedding.vocabulary_size, **workload["special_ids"])
    translators = {None: Translator(model, digits)}

    def open_with(long_file=False, **options):
        def translate(sentences, beam_size, tokens, compared, top_p):
            shapes.REPAYS_FROM = 0 if long_file else math.inf
            if tokens not in translators:
                translators[tokens] = Fixed(model, digits, tokens)
            texts = [digits.decode(ids) for ids in sentences]
            sampling = Sampling(top_p=top_p) if top_p else None
            found = translators[tokens].n_best(
                texts, 1, beam_size, "average", sampling=sampling, **options
            )
            return [best.ids for [best] in found]

        return translate

    settings = {"long_file": [False, True], "batch_size": [64, 32, 16, 256]}
    facts = {"compiles": True, "latency": {}, "throughput": settings}
    return answers(workload["sentences"], open_with), facts
