"""The pictures of docs/family.md; `python docs/draw.py` draws them.

One picture shows which block is where in every model of the family. The others show what
`recipes/compare_seq2seq.py` measured; its reports are beside this file. The picture
attention_of_an_image.png shows a trained model, and `recipes/classify_images.py` draws it.
"""

import importlib.util
import json
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

# A column a model: title, paper, and its boxes from below: (text, kind).
ENCODER = [("self-attention\nsees every position", "attention"), ("feed-forward", "block")]
CAUSAL = [("self-attention\nsees none that is later", "causal"), ("feed-forward", "block")]
CROSS = [CAUSAL[0], ("attention\nover the source", "attention"), CAUSAL[1]]
MODELS = [
    ("Transformer", "Vaswani 2017", "source tokens", ENCODER, "memory of the source"),
    ("", "its decoder", "target tokens, shifted", CROSS, "logits: the next token"),
    ("CausalLanguageModel", "GPT, Radford 2018", "tokens", CAUSAL, "logits: the next token"),
    (
        "MaskedLanguageModel",
        "BERT, Devlin 2018",
        "tokens, 15 % hidden",
        ENCODER,
        "logits: the hidden",
    ),
    (
        "VisionTransformer",
        "ViT, Dosovitskiy 2020",
        "patches of an image",
        ENCODER,
        "logits: its class",
    ),
]
COLOURS = {
    "attention": "#cfe3f5",
    "causal": "#f5d9c8",
    "block": "#e3efd5",
    "embedding": "#eee6f6",
    "plain": "#ffffff",
}


def family():
    figure, axes = plt.subplots(figsize=(13, 5.4))
    for column, (title, paper, inputs, blocks, head) in enumerate(MODELS):
        x = 2.6 * column
        box(axes, x, 0.0, inputs, "plain")
        box(axes, x, 1.0, "embedding + positions", "embedding")
        axes.text(x - 1.22, 2.0 + 0.5 * len(blocks), "L ×", ha="left", va="center", fontsize=9)
        frame = FancyBboxPatch(
            (x - 0.92, 1.85), 2.0, len(blocks) + 0.02, boxstyle="round,pad=0.06", fill=False
        )
        axes.add_patch(frame)
        for row, (text, kind) in enumerate(blocks):
            box(axes, x, 2.0 + row, text, kind)
        top = 2.25 + len(blocks)
        box(axes, x, top, head, "plain")
        axes.text(x, 6.75, title, ha="center", fontsize=11, weight="bold")
        axes.text(x, 6.4, paper, ha="center", fontsize=9)
        for low, high in ((0.7, 1.0), (1.7, 1.85), (top - 0.3, top)):
            axes.annotate("", (x, high), (x, low), arrowprops={"arrowstyle": "->"})
    # The memory goes from the encoder's head to the decoder's attention over the source.
    axes.annotate(
        "", (2.6 - 0.85, 3.35), (0.85, 4.6), arrowprops={"arrowstyle": "->", "linestyle": "--"}
    )
    axes.set_xlim(-1.4, 11.7)
    axes.set_ylim(-0.2, 7.1)
    axes.axis("off")
    figure.tight_layout()
    return figure


def box(axes, x, y, text, kind):
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.85, y), 1.86, 0.7, boxstyle="round,pad=0.03", facecolor=COLOURS[kind], lw=0.8
        )
    )
    axes.text(x + 0.08, y + 0.35, text, ha="center", va="center", fontsize=8.5)


def measured(name, function, *arguments):
    """Draws a report with `function` of recipes/seq2seq_reports.py, as the recipe does."""
    here = Path(__file__).parent
    path = here.parents[1] / "recipes" / "seq2seq_reports.py"
    spec = importlib.util.spec_from_file_location("seq2seq_reports", path)
    reports = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reports)
    report = json.loads((here / f"{name}.json").read_text(encoding="utf-8"))
    return getattr(reports, function)(report, *arguments)


def vanishing_gradient():
    """Draws what is left of a gradient k positions back, in untrained encoders."""
    report = json.loads((Path(__file__).parent / "reverse_gradient_reach.json").read_text("utf-8"))
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for name, title in (("transformer", "Transformer"), ("lstm", "LSTM"), ("rnn", "plain RNN")):
        _, *norms = report[name]["start"]["encoder"]  # k = 0 is the position itself
        shares = [100 * norm / norms[0] for norm in norms]
        axes.plot(range(1, len(norms) + 1), shares, label=title)
        axes.annotate(
            f"{shares[-1]:.1f} %", (20, shares[-1]), xytext=(5, -3), textcoords="offset points"
        )
    axes.set(xlabel="k, positions back", ylabel="gradient, % of that at k = 1", yscale="log")
    axes.set(xlim=(0, 22.5), xticks=range(0, 21, 5), ylim=(0.3, 300))
    axes.set_yticks([1, 10, 100], ["1", "10", "100"])
    axes.grid(alpha=0.3)
    axes.legend(title="before training")
    return figure


PICTURES = {
    "family.png": family,
    "vanishing_gradient.png": vanishing_gradient,
    "multi30k_quality.png": partial(measured, "multi30k_quality", "draw_bleu"),
    "multi30k_gradient_reach.png": partial(measured, "multi30k_gradient_reach", "draw_reach"),
    "reverse_quality.png": partial(measured, "reverse_quality", "draw_accuracy", 20),
    "reverse_gradient_reach.png": partial(measured, "reverse_gradient_reach", "draw_reach"),
}
