"""Pictures of docs/performance.md and docs/lab-notebook.md; `python docs/draw.py` draws them."""

import json
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

HERE = Path(__file__).parent


def drawn(name, draw):
    return draw(json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")))


def draw_attention(report):
    """Draws memory and time of attention over length, with one line per way."""
    cells = report["cells"]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name, label in zip(
        axes,
        ("mebibytes", "milliseconds"),
        ("memory of a step, MiB", "time of a step, ms"),
        strict=True,
    ):
        for way in dict.fromkeys(cell["way"] for cell in cells):
            chosen = [cell for cell in cells if cell["way"] == way]
            axis.plot(
                [cell["length"] for cell in chosen],
                [cell[name] for cell in chosen],
                marker="o",
                linewidth=3 if way == "automatic" else 1.5,
                alpha=0.5 if way == "automatic" else 1,
                label=way,
            )
        axis.set(xlabel="positions", ylabel=label, xscale="log", yscale="log")
        axis.set_xticks(sorted({cell["length"] for cell in cells}))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def draw_throughput(report):
    """Draws target tokens/s over sentences at once, for the settings that contestants tried."""
    cells = [cell for cell in report["cells"] if cell["measurement"] == "throughput"]
    figure, axes = pyplot.subplots(1, len(cells), figsize=(5 * len(cells), 4), layout="constrained")
    for axis, cell in zip(axes if len(cells) > 1 else [axes], cells, strict=True):
        for name, result in cell["contestants"].items():
            best = dict(sorted(_batches(cell, result)))  # keeps the fastest of equal sizes
            if best:
                axis.plot(best.keys(), best.values(), marker="o", label=name.replace("_", " "))
        axis.set(
            title=f"{cell['size']}, {cell['search']}",
            xlabel="sentences at once",
            ylabel="target tokens/s",
            xscale="log",
            ylim=(0, None),
        )
        axis.set_xticks([16, 32, 64, 128, 256])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def _batches(cell, result):
    """Yields (sentences at once, tokens/s) of tried settings whose other values are the best."""
    tokens = cell["request"]["tokens"] * cell["compared"]
    for tried in result["tried"]:
        batch = str(tried.get("batch_size") or tried.get("batch") or "").split()
        others = {k: v for k, v in tried.items() if k in result["setting"] and "batch" not in k}
        best = {k: result["setting"][k] for k in others}
        if batch and batch[1:] != ["tokens"] and others == best:
            yield int(batch[0]), tokens / tried["seconds"]


def draw_bleu(report):
    """Draws BLEU of the validation text over wall-clock time, with one line per contestant."""
    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, points in report["curves"].items():
        minutes = [point["minutes"] for point in points]
        best = [max(point["bleu"].values()) for point in points]
        axis.plot(minutes, best, marker="o", label=name.replace("_", " "))
    axis.axhline(40, color="grey", linewidth=1, linestyle="dotted")
    axis.set(xlabel="minutes from the start of the command", ylabel="BLEU, validation text")
    axis.set(xlim=(0, None), ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    return figure


PICTURES = {
    "attention.png": partial(drawn, "attention", draw_attention),
    "decode.png": partial(drawn, "decode", draw_throughput),
    "time_to_bleu.png": partial(drawn, "time_to_bleu", draw_bleu),
}
