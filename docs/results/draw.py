"""Draws the learning curves of docs/results.md; `python docs/draw.py` draws them too.

    python docs/results/draw.py --add RUN curves/GROUP/NAME.csv     # copies a curve from a run

A curve is a small table, so the pictures can be drawn again without the runs. It has one line per
validation, with the number of target tokens trained on so far.
"""

import argparse
import csv
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from keras_transformer import RunDirectory  # noqa: E402

HERE = Path(__file__).parent
COLUMNS = ("update", "target_tokens", "nats_per_token", "validation_nats", "validation_bleu")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--add", nargs=2, metavar=("RUN", "CSV"), required=True, help="its curve")
    run, path = parser.parse_args().add
    write(HERE / path, curve(RunDirectory.open(run).read_log()))
    print(f"wrote {HERE / path}; python docs/draw.py draws it")


def curve(log):
    """Returns the validations of a run's log: dictionaries of COLUMNS, with None for no BLEU."""
    rows, tokens = [], 0
    for record in log:
        if record["event"] == "interval":
            tokens += record["target_tokens"]
        elif record["event"] == "validation":
            names = ("update", "nats_per_token", "val_nats_per_token", "val_bleu")
            update, nats, validation, bleu = (record.get(name) for name in names)
            rows.append(
                dict(zip(COLUMNS, (update, int(tokens), nats, validation, bleu), strict=True))
            )
    return rows


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)
        ]


def draw_group(folder):
    return draw({path.stem: read(path) for path in sorted(folder.glob("*.csv"))})


def draw(curves):
    """Draws cross-entropy, and BLEU if it was measured, over target tokens, one line per run."""
    scored = any(row["validation_bleu"] for rows in curves.values() for row in rows)
    figure, axes = pyplot.subplots(1, 1 + scored, figsize=(5 * (1 + scored), 3.6), squeeze=False)
    for color, (name, rows) in enumerate(curves.items()):
        tokens = [row["target_tokens"] / 1e6 for row in rows]
        style = {"color": f"C{color}", "linewidth": 1.4}
        axes[0, 0].plot(
            tokens, [row["nats_per_token"] for row in rows], ":", label=f"{name}, training", **style
        )
        axes[0, 0].plot(
            tokens, [row["validation_nats"] for row in rows], label=f"{name}, validation", **style
        )
        if scored:
            points = [(t, row["validation_bleu"]) for t, row in zip(tokens, rows, strict=True)]
            axes[0, 1].plot(*zip(*[p for p in points if p[1]], strict=True), "o-", ms=3, **style)
    axes[0, 0].set_ylabel("nats per target token")
    axes[0, 0].set_ylim(top=min(axes[0, 0].get_ylim()[1], 5))
    axes[0, 0].legend(fontsize=7, frameon=False)
    if scored:
        axes[0, 1].set_ylabel("validation BLEU, greedy")
    for axis in axes.flat:
        axis.set_xlabel("target tokens, millions")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    figure.tight_layout()
    return figure


PICTURES = {
    f"{folder.name}.png": partial(draw_group, folder)
    for folder in sorted((HERE / "curves").iterdir())
}

if __name__ == "__main__":
    main()
