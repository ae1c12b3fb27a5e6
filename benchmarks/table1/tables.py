"""Turns the measurements of complexity.py into tables and a picture."""

import math

# Operations by Table 1 and section 4, and the exponents of n and d if one term dominates.
LAYERS = {
    "attention core": ("n^2 d", 2, 1),
    "attention layer": ("n^2 d + n d^2", None, None),
    "restricted core": ("r n d", 1, 1),
    "restricted layer": ("r n d + n d^2", 1, None),
    "recurrent": ("n d^2", 1, 2),
    "LSTM": ("n d^2", 1, 2),
    "convolution": ("k n d^2", 1, 2),
    "separable": ("k n d + n d^2", 1, None),
}
# The paths that are measured from the first position to the last, and their layers.
PATHS = {
    "attention layer": "attention layer",
    "restricted layer": "restricted layer",
    "recurrent": "recurrent",
    "LSTM": "LSTM",
    "convolution": "convolution",
    "convolution, dilated": "convolution",
    "separable": "separable",
}
PATHS_BY_THEORY = {
    "attention layer": "1",
    "restricted layer": "n/r",
    "recurrent": "n",
    "LSTM": "n",
    "convolution": "n/k",
    "convolution, dilated": "log_k(n)",
    "separable": "n/k",
}


def pairs(layers):
    """Returns the pairs of layers whose crossing is measured."""
    return [
        (attention, recurrence)
        for attention in ("attention core", "attention layer")
        for recurrence in ("recurrent", "LSTM")
        if attention in layers and recurrence in layers
    ]


def slope(points):
    """Fits y = a x^b by least squares of the logarithms and returns b.

    Points with y = 0 are left out. Fewer than two points give None.
    """
    points = [(math.log(x), math.log(y)) for x, y in points if y > 0]
    if len(points) < 2:
        return None
    middle = [sum(each) / len(points) for each in zip(*points, strict=True)]
    above = sum((x - middle[0]) * (y - middle[1]) for x, y in points)
    return above / sum((x - middle[0]) ** 2 for x, _ in points)


def tables(report):
    """Returns every table as (title, names of the columns, rows of texts)."""
    return [
        chains(report),
        exponents(report),
        milliseconds(report),
        memory(report),
        crossings(report),
    ]


def chains(report):
    sizes = report["sizes"]
    n, d = sizes["length"], sizes["widths"][-1]
    rows = []
    for layer in dict.fromkeys([*_layers(report), *(cell["layer"] for cell in report["paths"])]):
        counts = _chosen(report["counts"], layer=layer, n=n, d=d, way="forward")
        row = [layer, *(f"{cell['operations']:,}" for cell in counts)] if counts else [layer, ""]
        for way in ("forward", "both"):
            chosen = _chosen(report["counts"], layer=layer, way=way, d=sizes["width"])
            lengths = {cell["n"]: cell["sequential"] for cell in chosen}
            row.append(" ".join(str(lengths[n]) for n in sizes["chains"] if n in lengths))
        paths = _chosen(report["paths"], layer=layer)
        row.append(" ".join(str(cell["path"]) for cell in paths))
        row.insert(1, LAYERS[layer][0] if layer in LAYERS else "")
        row.append(PATHS_BY_THEORY.get(layer, ""))
        rows.append(row)
    lengths = ", ".join(map(str, sizes["chains"]))
    title = (
        f"Operations (multiplications, n = {n}, d = {d}), sequential operations and path lengths "
        f"(n = {lengths}); r = {sizes['neighbourhood']}, k = {sizes['kernel']}"
    )
    header = ["layer", "theory", "counted", "sequential", "with gradients", "path", "theory"]
    return title, header, rows


def exponents(report):
    sizes = report["sizes"]
    rows = []
    for layer in _layers(report):
        for axis, name in enumerate("nd"):
            fixed = {"d": sizes["width"]} if name == "n" else {"n": sizes["length"]}
            values = sizes["lengths" if name == "n" else "widths"]

            def fit(cells, figure, way, layer=layer, name=name, fixed=fixed, values=values):
                cells = _chosen(cells, layer=layer, way=way, **fixed)
                return _number(slope([(c[name], c[figure]) for c in cells if c[name] in values]))

            theory = LAYERS[layer][1 + axis]
            rows.append(
                [
                    layer,
                    name,
                    "1 to 2" if theory is None else str(theory),
                    fit(report["counts"], "operations", "forward"),
                    fit(report["times"], "seconds", "forward"),
                    fit(report["times"], "seconds", "both"),
                ]
            )
    title = (
        f"Exponents of n ({_range(sizes['lengths'])}, d = {sizes['width']}) and of d "
        f"({_range(sizes['widths'])}, n = {sizes['length']}), {report['backend']}"
    )
    return title, ["layer", "of", "theory", "operations", "time", "with gradients"], rows


def milliseconds(report):
    sizes = report["sizes"]
    grid = [(n, sizes["width"]) for n in sizes["lengths"]]
    grid += [(sizes["length"], d) for d in sizes["widths"]]
    rows = []
    for layer in _layers(report):
        for way in ("forward", "both"):
            found = [_chosen(report["times"], layer=layer, way=way, n=n, d=d)[0] for n, d in grid]
            name = "forward" if way == "forward" else "with gradients"
            rows.append([layer, name, *(f"{1000 * cell['seconds']:.3g}" for cell in found)])
    header = ["layer", "", *(f"{n} x {d}" for n, d in grid)]
    return f"Milliseconds of a step at n x d, {report['backend']}", header, rows


def memory(report):
    sizes = report["sizes"]
    rows = []
    for layer in _layers(report):
        for way in ("forward", "both"):
            found = _chosen(report["memory"], layer=layer, way=way)
            fitted = slope([(cell["n"], cell["mebibytes"]) for cell in found])
            name = "forward" if way == "forward" else "with gradients"
            values = [f"{cell['mebibytes']:.1f}" for cell in found]
            rows.append([layer, name, *values, _number(fitted)])
    header = ["layer", "", *(f"n = {n}" for n in sizes["memory_lengths"]), "exponent"]
    title = f"Memory of a step in MiB, d = {sizes['memory_width']}, {report['backend']}"
    return title, header, rows


def crossings(report):
    rows = []
    for cell in report["crossings"]:
        row = [f"{cell['attention']}, {cell['recurrence']}", str(cell["d"])]
        row.append(str(cell["n"]))
        for way in ("forward", "both"):
            row.append(crossing(report["times"], cell, way))
        rows.append(row)
    title = f"The n from which attention takes longer than the recurrence, {report['backend']}"
    return title, ["layers", "d", "operations", "time", "with gradients"], rows


def crossing(times, pair, way):
    """Returns the length where the times of a pair cross, interpolated, as text."""
    first, second = (
        {cell["n"]: cell["seconds"] for cell in _chosen(times, layer=name, way=way, d=pair["d"])}
        for name in (pair["attention"], pair["recurrence"])
    )
    points = [(n, math.log(first[n] / second[n])) for n in sorted(first) if n in second]
    if points[-1][1] < 0:
        return f"> {points[-1][0]}"
    # Takes the last crossing, because noise may make the times cross more than once.
    earlier = [index for index, (_, ratio) in enumerate(points) if ratio < 0]
    if not earlier:
        return f"< {points[0][0]}"
    (low, below), (high, above) = points[earlier[-1] : earlier[-1] + 2]
    share = below / (below - above)
    return f"{math.exp((1 - share) * math.log(low) + share * math.log(high)):.0f}"


def as_text(table):
    title, header, rows = table
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([title, *lines])


def as_markdown(table):
    title, header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return f"{title}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(report):
    """Draws time over n and d, and memory over n: one line per layer, dashed with gradients."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = report["sizes"]
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    panels = [
        ("times", "n", sizes["lengths"], {"d": sizes["width"]}, "seconds", "time of a step, s"),
        ("times", "d", sizes["widths"], {"n": sizes["length"]}, "seconds", "time of a step, s"),
        ("memory", "n", sizes["memory_lengths"], {}, "mebibytes", "memory of a step, MiB"),
    ]
    for axis, (part, name, values, fixed, figures, label) in zip(axes, panels, strict=True):
        for number, layer in enumerate(_layers(report)):
            for way, style in (("forward", "-"), ("both", "--")):
                cells = _chosen(report[part], layer=layer, way=way, **fixed)
                points = sorted(
                    (cell[name], cell[figures]) for cell in cells if cell[name] in values
                )
                axis.plot(
                    *zip(*points, strict=True),
                    style,
                    marker="o",
                    markersize=4,
                    color=f"C{number}",
                    label=layer if way == "forward" else None,
                )
        others = fixed or {"d": sizes["memory_width"]}
        axis.set(xlabel=f"{name}  ({', '.join(f'{key} = {at}' for key, at in others.items())})")
        axis.set(ylabel=label, xscale="log", yscale="log")
        axis.set_xticks(values)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    axes[0].set_title("solid: forward, dashed: with gradients", fontsize="small")
    return figure


def _layers(report):
    return list(dict.fromkeys(cell["layer"] for cell in report["counts"]))


def _chosen(cells, **wanted):
    return [cell for cell in cells if all(cell[name] == value for name, value in wanted.items())]


def _range(values):
    return f"{values[0]} to {values[-1]}"


def _number(value):
    return "" if value is None else f"{value:.2f}"
