"""The pictures of the walk-through; `python docs/draw.py` draws them."""

import json
from pathlib import Path

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

import keras_transformer
from keras_transformer import visualization
from keras_transformer.layers.positional_encoding import sinusoids
from keras_transformer.optimizers.schedules import PaperSchedule
from keras_transformer.visualization import drawn_in_our_fonts

WORDS = ["나는", "집에", "간다"]
X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def figures():
    """Reads what measure.py found in a trained model."""
    return json.loads(Path(__file__).with_name("figures.json").read_text(encoding="utf-8"))


def _canvas(width, height, size):
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def _arrow(axes, start, end):
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color="#556"))


def _box(axes, x, y, width, height, text, color="#d6e6fb"):
    axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="#445"))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9)


@drawn_in_our_fonts()
def lstm():
    figure, axes = _canvas(11, 6, (7, 3.8))
    _arrow(axes, (0, 5), (11, 5))
    axes.text(0.1, 5.2, "cell 셀 cₜ₋₁", fontsize=9)
    axes.text(10, 5.2, "cₜ", fontsize=10)
    _arrow(axes, (0, 0.8), (9.9, 0.8))
    axes.text(0.1, 0.3, "hidden state 은닉 상태 hₜ₋₁, input 입력 xₜ", fontsize=9)
    gates = (
        (1, "σ", "forget 망각"),
        (3.5, "σ", "input 입력"),
        (5.2, "tanh", "candidate"),
        (7.5, "σ", "output 출력"),
    )
    for x, function, name in gates:
        _arrow(axes, (x + 0.5, 0.8), (x + 0.5, 1.9))
        _box(axes, x, 1.9, 1, 0.7, function, "#ffe2bb")
        axes.text(x + 0.6, 1.65, name, ha="left", va="top", fontsize=7)
    for x, y, sign in ((1.5, 5, "×"), (4.75, 3.6, "×"), (4.75, 5, "+"), (8, 3.6, "×")):
        axes.add_patch(Circle((x, y), 0.25, facecolor="white", edgecolor="#445", zorder=3))
        axes.text(x, y, sign, ha="center", va="center", fontsize=10, zorder=4)
    _arrow(axes, (1.5, 2.6), (1.5, 4.75))
    _arrow(axes, (4.0, 2.6), (4.6, 3.4))
    _arrow(axes, (5.7, 2.6), (4.95, 3.4))
    _arrow(axes, (4.75, 3.85), (4.75, 4.75))
    _arrow(axes, (8, 2.6), (8, 3.35))
    _box(axes, 8.6, 4.05, 0.9, 0.5, "tanh", "#ffe2bb")
    _arrow(axes, (9.05, 5), (9.05, 4.55))
    _arrow(axes, (8.6, 4.2), (8.2, 3.75))
    _arrow(axes, (8.25, 3.6), (10.9, 3.6))
    axes.text(10.1, 3.75, "hₜ", fontsize=10)
    return figure


@drawn_in_our_fonts()
def cross_and_self():
    sentence = figures()["sentence"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = (
        ("cross-attention 교차 어텐션\ntarget asks source", "cross", "inputs", "source"),
        ("self-attention 셀프 어텐션\nsource asks itself", "encoder", "source", "source"),
    )
    for axes, (title, kind, queries, keys) in zip(figure.subplots(1, 2), panels, strict=True):
        weights = np.mean(sentence["weights"][kind], axis=0)
        axes.imshow(weights, vmin=0, vmax=1, cmap="viridis")
        axes.set_xticks(range(len(sentence[keys])), sentence[keys], fontsize=8)
        axes.set_yticks(range(len(sentence[queries])), sentence[queries], fontsize=8)
        axes.set_xlabel("keys")
        axes.set_ylabel("queries")
        axes.set_title(title, fontsize=9)
    return figure


@drawn_in_our_fonts()
def receptive_field():
    """Draws what the middle of 15 positions has seen after every layer, by its derivatives."""
    length, middle = 15, 7
    keras.utils.set_random_seed(1)
    convolutions = [keras.layers.Conv1D(4, 3, padding="same") for _ in range(3)]
    attentions = [keras_transformer.layers.EncoderLayer(4, 1, 8) for _ in range(3)]
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    panels = (
        (convolutions, "convolution of 3 합성곱"),
        (attentions, "self-attention 셀프 어텐션"),
    )
    for axes, (layers, title) in zip(figure.subplots(1, 2), panels, strict=True):
        image = np.zeros((3, length))
        x = np.random.default_rng(0).normal(size=(1 + length, length, 4)).astype("float32")
        x[:] = x[0]
        x[np.arange(1, 1 + length), np.arange(length)] += 1  # row i: position i is another
        for depth, layer in enumerate(layers):
            x = layer(x)
            out = ops.convert_to_numpy(x)[:, middle]
            image[depth] = np.abs(out[1:] - out[0]).max(axis=1) > 1e-6
        axes.imshow(image, cmap="Blues", vmin=0, vmax=1.5, aspect="auto")
        axes.set_xticks(range(length), range(-middle, middle + 1), fontsize=7)
        axes.set_yticks(range(3), [f"layer {depth + 1}" for depth in range(3)], fontsize=7)
        axes.set_xticks(np.arange(length) - 0.5, minor=True)
        axes.set_yticks(np.arange(3) - 0.5, minor=True)
        axes.grid(which="minor", color="white")
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("position seen by 0 위치", fontsize=8)
        axes.set_title(title, fontsize=9)
    return figure


@drawn_in_our_fonts()
def nearest():
    found = figures()["neighbours"]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, (when, title) in zip(
        figure.subplots(1, 2),
        (("before", "before 학습 전"), ("after", "after 학습 후")),
        strict=True,
    ):
        place, labels = 0, []
        for word, rows in found[when].items():
            for piece, cosine in rows:
                axes.barh(place, cosine, color="tab:blue" if when == "after" else "tab:gray")
                labels.append(f"{word}: {piece}")
                place += 1
            place += 0.6
            labels.append("")
        spots = [i * 3.6 + j for i in range(len(found[when])) for j in range(3)]
        axes.set_yticks(spots, [label for label in labels if label], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("cosine")
        axes.set_title(title, fontsize=9)
    return figure


def positions():
    return visualization.positional_encoding(64, 64)


@drawn_in_our_fonts()
def position_products():
    table = ops.convert_to_numpy(sinusoids(64, 64))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    heat, line = figure.subplots(1, 2)
    heat.imshow(table @ table.T, cmap="viridis")
    heat.set(xlabel="position", ylabel="position", title="PE · PE$^T$")
    line.plot(table[0] @ table.T, marker=".")
    line.set(xlabel="distance 거리", ylabel="product 내적", title="of position 0 with the others")
    line.grid(alpha=0.3)
    return figure


@drawn_in_our_fonts()
def _matrices(parts):
    """Draws matrices in a row with signs between them: (matrix or sign, rows, columns, title)."""
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    ratios = [0.25 if isinstance(part[0], str) else part[0].shape[1] for part in parts]
    panels = figure.subplots(1, len(parts), width_ratios=ratios)
    for axes, (matrix, rows, columns, title) in zip(panels, parts, strict=True):
        if isinstance(matrix, str):
            axes.set_axis_off()
            axes.text(0.5, 0.5, matrix, ha="center", va="center", fontsize=13)
            continue
        axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
        for i, j in np.ndindex(matrix.shape):
            axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(columns)), columns, fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        axes.tick_params(length=0)
        axes.set_title(title, fontsize=9)
    return figure


def _scores():
    return X @ X.T / np.sqrt(2)


def _weights():
    return np.exp(_scores()) / np.exp(_scores()).sum(axis=1, keepdims=True)


def step_1():
    return _matrices(
        [
            (X, WORDS, ["", ""], "Q: the questions 질문"),
            ("·", "", "", ""),
            (X.T, ["", ""], WORDS, "Kᵀ: the labels 이름표"),
            ("/√2 =", "", "", ""),
            (_scores(), WORDS, WORDS, "scores 점수"),
        ]
    )


def step_2():
    return _matrices(
        [
            (_scores(), WORDS, WORDS, "scores 점수"),
            ("→", "", "", ""),
            (_weights(), WORDS, WORDS, "softmax of each row 행마다"),
        ]
    )


def step_3():
    return _matrices(
        [
            (_weights(), WORDS, WORDS, "weights 가중치"),
            ("·", "", "", ""),
            (X, WORDS, ["", ""], "V: the contents 내용물"),
            ("=", "", "", ""),
            (_weights() @ X, WORDS, ["", ""], "new vectors 새 벡터"),
        ]
    )


@drawn_in_our_fonts()
def contextual():
    cosines = figures()["contextual"]
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.subplots()
    names = ["embedded", *(f"layer {i + 1}" for i in range(len(cosines) - 1))]
    axes.plot(names, cosines, marker="o")
    for name, cosine in zip(names, cosines, strict=True):
        axes.annotate(f"{cosine:.3f}", (name, cosine), textcoords="offset points", xytext=(6, 4))
    axes.set_ylabel("cosine")
    axes.set_title("사랑: 나는 내 가족들을 사랑해 / 나는 스스로를 사랑해", fontsize=9)
    axes.grid(alpha=0.3)
    axes.margins(x=0.15, y=0.25)
    return figure


@drawn_in_our_fonts()
def square_root():
    rng = np.random.default_rng(0)
    widths = [2, 4, 8, 16, 32, 64, 128, 256, 512]
    figure = Figure(figsize=(8, 3), layout="constrained")
    entropy, slope = figure.subplots(1, 2)
    for name, power in (("no division 나누지 않음", 0), ("/ √d_k", 0.5), ("/ d_k", 1)):
        spread, slopes = [], []
        for d_k in widths:
            q, k = rng.normal(size=(500, 1, d_k)), rng.normal(size=(500, 10, d_k))
            s = (q * k).sum(axis=-1) / d_k**power
            p = np.exp(s - s.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            spread.append(-(p * np.log(p + 1e-30)).sum(axis=1).mean())
            slopes.append((p * (1 - p)).mean())
        entropy.semilogx(widths, spread, marker=".", label=name)
        slope.semilogx(widths, slopes, marker=".", label=name)
    entropy.axhline(np.log(10), color="gray", linewidth=0.8)
    entropy.set(xlabel="d_k", ylabel="nats", title="entropy of 10 weights")
    slope.set(xlabel="d_k", title="slope of the softmax 기울기")
    slope.legend(fontsize=7)
    return figure


def masks():
    return visualization.masks(
        [*WORDS, "</s>", "<pad>", "<pad>"], ["<s>", "I", "go", "home", "<pad>"]
    )


@drawn_in_our_fonts()
def multi_head():
    figure, axes = _canvas(12, 5.4, (8.5, 3.8))
    _box(axes, 0.1, 2, 1.3, 1.4, "x\n[S, 512]")
    colors = ("#ffd9a8", "#d6d0f0", "#cdebd0")
    for i, name in enumerate("QKV"):
        y = 3.9 - 1.6 * i
        _arrow(axes, (1.4, 2.7), (2.2, y + 0.3))
        _box(axes, 2.2, y, 1.5, 0.7, f"$W_{name.lower()}$ [512, 512]", colors[i])
        _arrow(axes, (3.7, y + 0.35), (4.3, y + 0.35))
        for head in range(8):
            axes.add_patch(
                Rectangle(
                    (4.3 + 0.2 * head, y), 0.2, 0.7, facecolor=colors[i], edgecolor="#445", lw=0.5
                )
            )
        axes.text(5.1, y + 0.85, f"{name}: 8 x [S, 64]", ha="center", fontsize=8)
        _arrow(axes, (5.9, y + 0.35), (6.6, 2.7))
    _box(axes, 6.6, 1.9, 1.7, 1.6, "8 heads 헤드\nsoftmax(QK$^T$/8) V\n8 x [S, 64]", "#fbe9e7")
    _arrow(axes, (8.3, 2.7), (8.8, 2.7))
    _box(axes, 8.8, 2.2, 1.1, 1, "concat\n[S, 512]", "#eeeeee")
    _arrow(axes, (9.9, 2.7), (10.3, 2.7))
    _box(axes, 10.3, 2.2, 1.5, 1, "$W^O$ [512, 512]\nout: [S, 512]", "#f3f6c7")
    return figure


def _per_head(found, highest, colors, text, label):
    """Draws one number per layer and head of the three attentions."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, (kind, values) in zip(figure.subplots(1, 3), found.items(), strict=True):
        values = np.array(values)
        image = axes.imshow(values, vmin=0, vmax=highest, cmap=colors)
        for i, j in np.ndindex(values.shape):
            color = "black" if values[i, j] > highest / 2 else "white"
            number = format(values[i, j], text)
            axes.text(j, i, number, ha="center", va="center", color=color, fontsize=8)
        layers, heads = (range(size) for size in values.shape)
        axes.set_xticks(heads, [f"head {j + 1}" for j in heads], fontsize=7)
        axes.set_yticks(layers, [f"layer {i + 1}" for i in layers], fontsize=7)
        axes.set_title(kind, fontsize=9)
    figure.colorbar(image, ax=figure.axes, label=label)
    return figure


@drawn_in_our_fonts()
def head_entropy():
    return _per_head(figures()["entropies"], 1, "magma", ".2f", "1 = spread evenly")


@drawn_in_our_fonts()
def head_pruning():
    """Draws what every head is worth: the extra nats per token without it."""
    found = figures()["pruned"]
    worth = {kind: np.array(each) - found["whole"] for kind, each in found["without"].items()}
    highest = max(each.max() for each in worth.values())
    return _per_head(worth, highest, "viridis", "+.3f", "nats per token more")


@drawn_in_our_fonts()
def steps():
    """Draws the candidates of every step of decoding, with their probabilities."""
    found, outputs = figures()["steps"], figures()["sentence"]["outputs"]
    inputs = figures()["sentence"]["inputs"]
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    for t, (axes, candidates) in enumerate(zip(figure.subplots(1, len(found)), found, strict=True)):
        pieces, probabilities = zip(*candidates, strict=True)
        colors = ["tab:orange" if piece == outputs[t] else "tab:gray" for piece in pieces]
        axes.barh(range(len(pieces)), probabilities, color=colors)
        axes.set_yticks(range(len(pieces)), pieces, fontsize=7)
        axes.set(xscale="log", xlim=(1e-5, 1), xlabel="probability 확률")
        axes.xaxis.label.set_size(8)
        axes.invert_yaxis()
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(f"{t + 1}: {' '.join(inputs[: t + 1])} …", fontsize=8)
    return figure


@drawn_in_our_fonts()
def encoder_to_decoder():
    """Draws how the encoder's last output goes into every layer of the decoder."""
    figure, axes = _canvas(10, 7.6, (5.6, 4.2))
    for number in range(6):
        y = 0.9 + number
        _box(axes, 0.6, y, 2.4, 0.6, f"encoder layer {number + 1}")
        _box(axes, 6.6, y, 2.8, 0.6, f"decoder layer {number + 1}", "#fbe9e7")
        _arrow(axes, (1.8, y - 0.4), (1.8, y))
        _arrow(axes, (8, y - 0.4), (8, y))
        _arrow(axes, (4.9, y + 0.3), (6.6, y + 0.3))
    axes.plot([1.8, 1.8, 4.9, 4.9], [6.5, 7, 7, 1.2], color="#556", linewidth=1)
    axes.text(3.3, 7.15, "memory [B, S, D]: keys and values", ha="center", fontsize=8)
    axes.text(1.8, 0.15, "source 원문", ha="center", fontsize=9)
    axes.text(8, 0.15, "target so far 지금까지의 번역", ha="center", fontsize=9)
    _arrow(axes, (8, 6.5), (8, 7))
    axes.text(8, 7.1, "logits", ha="center", fontsize=9)
    return figure


def three_attentions():
    sentence = figures()["sentence"]
    weights = [
        np.mean(sentence["weights"][kind], axis=0) for kind in ("encoder", "decoder", "cross")
    ]
    return _three(sentence, weights)


@drawn_in_our_fonts()
def _three(sentence, weights):
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    labels = (("source", "source"), ("inputs", "inputs"), ("inputs", "source"))
    titles = ("encoder 인코더", "decoder, masked 마스크드", "cross-attention 교차")
    for axes, each, (queries, keys), title in zip(
        figure.subplots(1, 3), weights, labels, titles, strict=True
    ):
        axes.imshow(each, vmin=0, vmax=1, cmap="viridis")
        axes.set_xticks(range(len(sentence[keys])), sentence[keys], fontsize=8)
        axes.set_yticks(range(len(sentence[queries])), sentence[queries], fontsize=8)
        axes.set_title(title, fontsize=9)
    return figure


@drawn_in_our_fonts()
def schedule():
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, 20_001, 50)
    for d_model, warmup in ((512, 4000), (512, 8000), (256, 4000)):
        rates = [float(PaperSchedule(d_model, warmup)(step)) for step in steps]
        axes.plot(steps, rates, label=f"d_model {d_model}, warm-up {warmup:,}")
    axes.set(xlabel="update 갱신", ylabel="learning rate 학습률")
    axes.legend(fontsize=8)
    return figure


@drawn_in_our_fonts()
def learning():
    updates, nats = zip(*figures()["learning"], strict=True)
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(updates, nats, marker="o")
    axes.set(xlabel="update 갱신", ylabel="nats per token, validation")
    axes.grid(alpha=0.3)
    return figure


PICTURES = {
    "lstm.png": lstm,
    "cross-and-self.png": cross_and_self,
    "receptive-field.png": receptive_field,
    "neighbours.png": nearest,
    "positions.png": positions,
    "position-products.png": position_products,
    "step-1-scores.png": step_1,
    "step-2-weights.png": step_2,
    "step-3-values.png": step_3,
    "contextual.png": contextual,
    "square-root.png": square_root,
    "masks.png": masks,
    "multi-head.png": multi_head,
    "head-entropy.png": head_entropy,
    "head-pruning.png": head_pruning,
    "encoder-to-decoder.png": encoder_to_decoder,
    "steps.png": steps,
    "three-attentions.png": three_attentions,
    "schedule.png": schedule,
    "learning.png": learning,
}
