"""This package with `engine="auto"`: `Translator`'s interface on CTranslate2, as users call it.

As in ctranslate2_translate.py, the last of a fixed number of tokens takes the place of the end.
"""

from digits import Digits
from loop import answers, load

from keras_transformer.interop.ctranslate2_engine import CTranslate2Translator


class Fixed(CTranslate2Translator):
    """Translations of at most `steps` tokens."""

    steps = 0

    def _limit(self, item, wanted):
        return self.steps + 1 if self.steps else super()._limit(item, wanted)


def prepare(config):
    workload = load(config["folder"])
    words = {int(word) for word in workload["special_ids"].values()}
    size = 1 + max(*words, *(id for ids in workload["sentences"] for id in ids))
    digits = Digits(size, **workload["special_ids"])
    translator = Fixed(f"{config['folder']}/ctranslate2_float32", digits)

    def open_with(**options):
        def translate(sentences, beam_size, tokens, compared, top_p):
            translator.steps = tokens and (tokens - 1 if compared else tokens)
            texts = [digits.decode(ids) for ids in sentences]
            found = translator.n_best(texts, 1, beam_size, "average", **options)
            return [best.ids[: tokens and tokens - 1] for [best] in found]

        return translate

    settings = {"batch_size": [64, 32, 16, 128]}
    facts = {"compiles": False, "latency": {}, "throughput": settings}
    return answers(workload["sentences"], open_with), facts
