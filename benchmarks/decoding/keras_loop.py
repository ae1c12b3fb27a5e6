"""The same Keras model in the loop of Keras' translation example: no cache, greedy.

For each token the whole model runs on the source and on the target so far. Both are padded to one
fixed length. Python then takes the most probable token at the current position. The example calls
the model directly; the compiled variant calls `predict_on_batch`.
"""

import keras
import numpy as np
from loop import answers, load

import keras_transformer  # noqa: F401  registers the layers that the file contains


def prepare(config):
    workload = load(config["folder"])
    model = keras.models.load_model(f"{config['folder']}/model.keras", compile=False)
    special = workload["special_ids"]
    longest = max(map(len, workload["sentences"])) + 1

    logits_of = model.predict_on_batch if config["compiled"] else model

    def open_with():
        def sentence(ids, tokens):
            source = np.zeros((1, max(longest, tokens)), "int32")
            source[0, : len(ids) + 1] = [*ids, special["end_id"]]
            target = np.zeros((1, tokens), "int32")
            target[0, 0] = special["start_id"]
            found = []
            for position in range(tokens):
                logits = logits_of({"source_ids": source, "target_ids": target})
                found.append(int(np.argmax(logits[0, position])))
                if position + 1 < tokens:
                    target[0, position + 1] = found[-1]
            return found[:-1]  # the last token takes the place of the end

        def translate(sentences, beam_size, tokens, compared, top_p):
            if beam_size != 1 or top_p:
                raise ValueError("the loop of the example is greedy")
            return [sentence(ids, tokens) for ids in sentences]

        return translate

    facts = {"compiles": config["compiled"], "latency": {}}
    return answers(workload["sentences"], open_with), facts
