"""Draws the pictures of docs/performance.md from the reports beside this file.

python docs/performance/draw.py
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

HERE = Path(__file__).parent


def main():
    picture = HERE / "attention.png"
    draw_attention(json.loads((HERE / "attention.json").read_text())["cells"]).savefig(
        picture, dpi=110
    )
    print(picture)


def draw_attention(cells):
    """Memory and time of attention against length, a line for each way."""
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


if __name__ == "__main__":
    main()
