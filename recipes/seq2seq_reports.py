"""The measurements of `compare_seq2seq.py` as tables, JSON and pictures."""

import numpy as np

from keras_transformer.files import replacing, write_json


def report_speed(path, speed):
    rows = [["", "parameters", "updates", "validation nats/token", "target tokens/s"]]
    for name, found in speed.items():
        counts = [f"{found[key]:,}" for key in ("parameters", "updates")]
        nats, rate = found["validation_nats_per_token"], found["target_tokens_per_second"]
        rows.append([name, *counts, f"{nats:.3f}", f"{rate:,.0f}"])
    show("training (tokens/s without padding, of this run on this machine)", rows)
    save(path, "speed", speed, draw_speed(speed))


def report_quality(path, quality, args):
    any_of_them = next(iter(quality.values()))
    if args.task == "translate":
        buckets = any_of_them["buckets"]
        rows = [["", "all", *buckets]]
        rows.append(["sentences", *(f"{each['sentences']}" for each in buckets.values())])
        rows[1].insert(1, f"{sum(each['sentences'] for each in buckets.values())}")
        for name, found in quality.items():
            scores = [found["bleu"], *(each["bleu"] for each in found["buckets"].values())]
            rows.append([name, *(f"{score:.2f}" for score in scores)])
        text = "test2016" if args.measure == "test" else "the validation text"
        show(f"BLEU of {text}, by words of the source", rows)
        print(any_of_them["signature"])
        save(path, "quality", quality, draw_bleu(quality))
        return
    for what in ("sequences", "tokens"):
        rows = [["", *(f"{length}" for length in any_of_them)]]
        for name, found in quality.items():
            rows.append([name, *(f"{100 * each[what]:.1f}" for each in found.values())])
        show(f"% of {what} right, by length; trained up to {args.train_length}", rows)
    save(path, "quality", quality, draw_accuracy(quality, args.train_length))


def report_reach(path, reach):
    length = len(next(iter(reach.values()))["end"]["encoder"])
    shown = sorted({min(k, length - 1) for k in (0, 1, 2, 5, 10, 15, 20, 24)})
    for part in ("encoder", "decoder"):
        rows = [["", "", *(f"k={k}" for k in shown)]]
        for name, found in reach.items():
            for when in ("start", "end"):
                rows.append([name, when, *(f"{found[when][part][k]:.1e}" for k in shown)])
        title = "norm of d output(t) / d input(t - k), before and after training"
        show(f"{part}: {title}", rows)
    save(path, "gradient_reach", reach, draw_reach(reach))


def show(title, rows):
    """Prints a table; `rows` are lists of strings, the first one its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{title}")
    for row in rows:
        first, *rest = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join([f"{row[0]:<{len(first)}}", *rest]))


def save(folder, name, report, figure):
    """Writes `NAME.json` and `NAME.png` into the folder."""
    write_json(folder / f"{name}.json", report)
    with replacing(folder / f"{name}.png") as file:
        figure.savefig(file, format="png", dpi=110)


def _axes(columns, width=5.5):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width * columns, 4.2), layout="constrained")
    for axis in np.atleast_1d(axes):
        axis.grid(alpha=0.3)
    return figure, np.atleast_1d(axes)


def draw_bleu(report):
    """Draws BLEU against the length of the source, a line per model."""
    figure, [axis] = _axes(1, 7)
    for name, found in report.items():
        buckets = found["buckets"]
        scores = [bucket["bleu"] for bucket in buckets.values()]
        axis.plot(list(buckets), scores, marker="o", label=f"{name}, {found['bleu']:.1f} in all")
    axis.set(xlabel="words of the source", ylabel="BLEU", ylim=(0, None))
    figure.legend(loc="outside right center")
    return figure


def draw_accuracy(report, longest_trained):
    """Draws correct sequences and tokens against length. The dashed line is the longest trained."""
    figure, axes = _axes(2)
    for axis, what in zip(axes, ("sequences", "tokens"), strict=True):
        for name, found in report.items():
            shares = [100 * each[what] for each in found.values()]
            axis.plot([int(length) for length in found], shares, marker="o", label=name)
        axis.axvline(longest_trained, color="black", linestyle="--", linewidth=1)
        axis.text(longest_trained, 103, " longest in training", fontsize=8)
        axis.set(xlabel="length, symbols", ylabel=f"{what} that are right, %", ylim=(-3, 110))
    axes[0].legend()
    return figure


def draw_speed(report):
    """Draws target tokens per second, a bar per model."""
    figure, [axis] = _axes(1, 7)
    speeds = {name: found["target_tokens_per_second"] for name, found in report.items()}
    bars = axis.barh(list(speeds), list(speeds.values()))
    axis.bar_label(bars, fmt="{:,.0f}", padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set(xlabel="target tokens/s of training, padding not counted; of this run")
    return figure


def draw_reach(report):
    """Draws the norms against k: dashed before training, solid after it."""
    figure, axes = _axes(2)
    for axis, part in zip(axes, ("encoder", "decoder"), strict=True):
        for i, (name, found) in enumerate(report.items()):
            for when, style in (("start", "--"), ("end", "-")):
                norms = np.array(found[when][part])
                # A logarithmic axis has no zero, so a line ends there.
                shown = np.where(norms > 0, norms, np.nan)
                label = name if when == "end" else None
                axis.plot(shown, style, color=f"C{i}", label=label, linewidth=1.5)
        axis.set(
            title=part,
            xlabel="k, positions before",
            ylabel="norm of d output(t) / d input(t - k)",
            yscale="log",
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside right center", title="solid: trained\ndashed: before"
    )
    return figure
