"""The folder that `keras-transformer show` writes: a page that needs no network, and pictures."""

import base64
import importlib.resources
import io
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_transformer import progress
from keras_transformer.files import new_folder
from keras_transformer.visualization.attention import attention, token_probabilities
from keras_transformer.visualization.explanation import Explanation
from keras_transformer.visualization.fonts import korean_font

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = (
    "B sentences, S source tokens, T steps of the decoder, D = d_model, F = d_ff, V pieces in the "
    "vocabulary; recorded while this model read this sentence. Attention weighs [B, H, T, S]."
)


def write(explanation: Explanation, folder: str | os.PathLike) -> list[str]:
    """Writes `index.html`, which needs no network and no other file, and PNGs of its pictures.

    Args:
        explanation: A result of `explain`.
        folder: The folder to make, whole or not at all.

    Returns:
        The names of the files.

    Raises:
        ValueError: If `folder` exists.
        FileNotFoundError: If its parent does not exist.
    """
    drawn = draw(explanation)
    with (
        new_folder(folder) as path,
        progress.work("drawing", len(drawn), "pictures") as done,
    ):
        (path / "index.html").write_text(page(explanation), encoding="utf-8")
        for name, figure in drawn.items():
            figure.savefig(path / name, dpi=110)
            done()
    return ["index.html", *drawn]


def draw(explanation: Explanation) -> "dict[str, Figure]":
    """Returns the pictures by the names of their files: `{"cross-layer-1.png": Figure}`."""
    source, inputs = explanation.source_pieces, explanation.input_pieces
    axes = {"encoder": (source, source), "decoder": (inputs, inputs), "cross": (inputs, source)}
    titles = {
        "encoder": "source: self-attention",
        "decoder": "target: masked self-attention",
        "cross": "target to source",
    }
    figures = {}
    for kind, (queries, keys) in axes.items():
        for number, weights in enumerate(explanation.weights[kind], start=1):
            figures[f"{kind}-layer-{number}.png"] = attention(
                weights, queries, keys, f"{titles[kind]}, layer {number}"
            )
    figures["alignment.png"] = attention(
        explanation.weights["cross"][-1].mean(axis=0),
        [f"→ {piece}" for piece in explanation.output_pieces],
        source,
        "each step of the decoder, last layer, mean of heads",
    )
    figures["probabilities.png"] = token_probabilities(
        explanation.output_pieces, np.exp(explanation.log_probabilities).tolist()
    )
    return figures


def page(explanation: Explanation) -> str:
    """Returns the page as text."""
    data = json.dumps(page_data(explanation), ensure_ascii=False, separators=(",", ":"))
    # Escaped, no text can end the script that holds it. JSON reads the escapes back.
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    template = with_pictures(__package__)
    font = _font(set(template) | set(data))
    return template.replace("/*FONT*/", font).replace("/*DATA*/", data)


def with_pictures(room: str) -> str:
    """Returns the `page.html` of a room, with the script that draws the pictures of a page."""
    files = importlib.resources.files
    script = files("keras_transformer.visualization").joinpath("pictures.js").read_text("utf-8")
    return files(room).joinpath("page.html").read_text("utf-8").replace("/*PICTURES*/", script)


def page_data(explanation: Explanation) -> dict[str, Any]:
    """Returns what a page shows of an explanation, in the types of JSON."""
    found = explanation

    def rounded(weights):
        return [np.round(layer.astype("float64"), 4).tolist() for layer in weights]

    return {
        "source": found.source,
        "target": found.target,
        "summary": (
            f"{'A given translation' if found.given else 'The translation found'}, "
            f"log-probability {found.log_probability:.3f} nats over {len(found.outputs)} tokens; "
            f"{len(found.weights['encoder'])} + {len(found.weights['decoder'])} layers of "
            f"{found.weights['encoder'].shape[1]} heads."
        ),
        "warnings": [f"Warning: {sentence}" for sentence in found.warnings],
        "source_pieces": found.source_pieces,
        "source_ids": found.source_ids,
        "inputs_pieces": found.input_pieces,
        "inputs_ids": found.inputs,
        "outputs_pieces": found.output_pieces,
        "source_words": found.source_words,
        "input_words": found.input_words,
        "weights": {
            "pieces": {kind: rounded(each) for kind, each in found.weights.items()},
            "words": {kind: rounded(each) for kind, each in found.word_weights.items()},
        },
        "log_probability": found.log_probability,
        "log_probabilities": found.log_probabilities,
        "candidates": found.candidates,
        "nodes": [
            {
                "step": len(node.ids),
                "parent": node.parent,
                "piece": piece,
                "prefix": _prefix(found, number),
                "log_probability": node.log_probability,
                "score": node.score,
                "kept": node.kept,
            }
            for number, (node, piece) in enumerate(zip(found.nodes, found.node_pieces, strict=True))
        ],
        "best": found.best,
        "letters": LETTERS,
        "shapes": [
            {
                "depth": call.depth,
                "layer": call.layer,
                "name": call.name,
                "shape": call.shape,
                "letters": letters,
                "file": call.module.replace(".", "/") + ".py",
            }
            for call, letters in found.shapes
        ],
    }


def _prefix(explanation, number):
    pieces = []
    while number > 0:
        pieces.append(explanation.node_pieces[number])
        number = explanation.nodes[number].parent
    return "".join(reversed(pieces)).replace("▁", " ").strip()


def _font(characters):
    """Returns a CSS font face with only the glyphs that the page needs of the Korean font."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    font = TTFont(korean_font())
    wanted = {ord(each) for each in characters if ord(each) > 127} & set(font.getBestCmap())
    options = subset.Options(flavor="woff", layout_features=[], notdef_outline=True)
    options.drop_tables += ["TSI0", "TSI1", "TSI2", "TSI3", "TSI5"]  # a font editor's notes
    cut = subset.Subsetter(options)
    cut.populate(unicodes=wanted)
    cut.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return (
        '@font-face { font-family: "Korean of this page"; font-display: block; '
        f'src: url("data:font/woff;base64,{encoded}"); }}'
    )
