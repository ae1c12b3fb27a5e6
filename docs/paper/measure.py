"""Measures a trained model for the walk-through: `python docs/paper/measure.py runs/demo`.

`make demo` trains the model. This script writes docs/paper/figures.json, and
`python docs/draw.py` draws it.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

import keras_transformer as kt
from keras_transformer.datasets import korean_english as corpus
from keras_transformer.files import replacing
from keras_transformer.models import Transformer
from keras_transformer.visualization import explain

SENTENCE = "나는 집에 간다"
CONTEXTS = ("나는 내 가족들을 사랑해", "나는 스스로를 사랑해")
NEIGHBOURS = ("coffee", "school", "sister", "eat")
ROBUST = (
    "나는 커피를 좋아해",
    "나는커피를 좋아해",
    "나는커피를좋아해",
    "나는 커피를 조아해",
    "나는 커피를 좋아해 !!",
)


def rounded(array, digits=4):
    return np.round(np.asarray(array, "float64"), digits).tolist()


def neighbours(table, tokenizer):
    """Returns the three nearest rows of the table for every word, by cosine."""
    size = tokenizer.vocabulary_size
    unit = table[:size] / np.linalg.norm(table[:size], axis=1, keepdims=True)
    found = {}
    for word in NEIGHBOURS:
        row = tokenizer.piece_to_id(f"▁{word}")
        if row == tokenizer.unknown_id:
            raise ValueError(f"The vocabulary has no piece for {word!r}: choose another word.")
        cosines = unit @ unit[row]
        near = np.argsort(-cosines)[1:4]
        found[word] = [[tokenizer.id_to_piece(i), round(float(cosines[i]), 3)] for i in near]
    return found


def contextual(model, tokenizer):
    """Returns the cosines of 사랑's vectors in two sentences: embedded, and after every layer."""
    states = []
    for text in CONTEXTS:
        ids = [*tokenizer.encode(text), tokenizer.end_id]
        place = tokenizer.pieces(text).index("▁사랑")
        x = model.source_embedding(np.array([ids]))
        of_layers = [ops.convert_to_numpy(x)[0, place]]
        for layer in model.encoder.layers:
            x = layer(x)
            of_layers.append(ops.convert_to_numpy(x)[0, place])
        states.append(of_layers)
    return [
        round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 3)
        for a, b in zip(*states, strict=True)
    ]


def entropies(model, tokenizer, sentences):
    """Returns the mean entropy of the rows per head, as a share of the largest possible entropy."""
    sums = {}
    for source, target in sentences:
        ids = [*tokenizer.encode(source), tokenizer.end_id]
        target_ids = [tokenizer.start_id, *tokenizer.encode(target)]
        weights = model.attention_weights(np.array([ids]), np.array([target_ids]))
        for kind, each in weights.items():
            rows = -(each[:, 0] * np.log(each[:, 0] + 1e-9)).sum(axis=-1)  # [L, H, T]
            seen = np.count_nonzero(each[:, 0] > 0, axis=-1)
            share = np.where(seen > 1, rows / np.log(np.maximum(seen, 2)), np.nan)
            sums.setdefault(kind, []).append(np.nanmean(share, axis=-1))
    return {kind: rounded(np.mean(each, axis=0), 3) for kind, each in sums.items()}


def pruned(translator, pairs):
    """Returns the nats per token of pairs for the whole model, and without one head at a time.

    To leave out a head, its rows of the output projection are set to 0.
    """
    [model] = translator.models

    def nats():
        found = translator.token_log_probabilities(pairs)
        return -sum(map(sum, found)) / sum(map(len, found))

    left_out = {}
    for name, stack, attention in (
        ("encoder", model.encoder, "self_attention"),
        ("decoder", model.decoder, "self_attention"),
        ("cross", model.decoder, "cross_attention"),
    ):
        for layer in stack.layers:
            part = getattr(layer, attention)
            kernel = ops.convert_to_numpy(part.output_projection.kernel)
            row = []
            for head in np.split(np.arange(len(kernel)), part.num_heads):
                without = kernel.copy()
                without[head] = 0
                part.output_projection.kernel.assign(without)
                row.append(round(nats(), 4))
            part.output_projection.kernel.assign(kernel)
            left_out.setdefault(name, []).append(row)
    return {"whole": round(nats(), 4), "without": left_out}


def main(folder):
    run = kt.RunDirectory.open(folder)
    translator = kt.load_translator(folder)
    [model], tokenizer = translator.models, translator.tokenizer
    table = ops.convert_to_numpy(model.target_embedding.trainable_variables[0])
    keras.utils.set_random_seed(0)
    fresh = Transformer.from_config({**model.get_config(), "name": "fresh"})
    found = explain(translator, SENTENCE)
    tests = corpus.generate(1, corpus.SIZE, 100)["random"][:50]
    epochs = [each for each in run.read_log() if each["event"] == "validation"]
    figures = {
        "neighbours": {
            "before": neighbours(
                ops.convert_to_numpy(fresh.target_embedding.trainable_variables[0]), tokenizer
            ),
            "after": neighbours(table, tokenizer),
        },
        "contextual": contextual(model, tokenizer),
        "entropies": entropies(model, tokenizer, tests),
        "sentence": {
            "source": found.source_pieces,
            "inputs": found.input_pieces,
            "outputs": found.output_pieces,
            "weights": {kind: rounded(each[-1]) for kind, each in found.weights.items()},
        },
        "pruned": pruned(translator, corpus.generate(1, corpus.SIZE, 500)["random"]),
        "steps": [
            [[piece, round(probability, 4)] for piece, probability in each]
            for each in found.candidates
        ],
        "learning": [[each["update"], round(each["val_nats_per_token"], 4)] for each in epochs],
        "robust": {
            text: translation
            for text, translation in zip(ROBUST, translator.translate(ROBUST), strict=True)
        },
    }
    path = Path(__file__).with_name("figures.json")
    with replacing(path) as file:
        file.write(json.dumps(figures, ensure_ascii=False, indent=1).encode())
    print(f"wrote {path}; python docs/draw.py draws from it")


if __name__ == "__main__":
    main(sys.argv[1])
