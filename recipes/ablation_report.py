"""What rows of Table 3 say, compared with the base and the paper; for ablate_paper.py.

A difference is judged by an interval, from difference - noise to difference + noise. With two seeds
or more that is the 95 % interval of Student's t, with the deviation over seeds pooled over all
rows. So one of 20 differences is found by chance. With one seed per row the noise is assumed, not
measured: 5 % of perplexity, 1 BLEU. Perplexity is compared by its logarithm, so its differences
are shares of the base's.
"""

import math
from typing import NamedTuple

import numpy as np

from keras_transformer.models import TABLE_3

# Two-sided 5 % of Student's t with 1 to 10 degrees of freedom.
STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
ABOUT_EQUAL = 0.02  # of the base's figure

SEEN, NOT_SEEN, UNDECIDED = "seen", "not seen", "undecided"


class Metric(NamedTuple):
    """How one figure is compared."""

    name: str  # of the attribute of a row and of the key of a result
    unit: float  # the paper's last digit: so small a difference is rounding
    one_seed: float  # the noise if no row has two seeds


PERPLEXITY = Metric("perplexity", 0.01, math.log(1.05))
BLEU = Metric("bleu", 0.1, 1.0)

# The paper's conclusions (section 6.2), and the rows that support each. The direction in which a
# row should move is taken from the paper's figures, separately for each metric.
CONCLUSIONS = {
    "fewer heads are worse": ("A-heads-1", "A-heads-4"),
    "too many heads are worse": ("A-heads-32",),
    "twice the heads are about equal": ("A-heads-16",),
    "smaller keys are worse": ("B-key-dim-16", "B-key-dim-32"),
    "larger models are better (N = 8 not in BLEU)": (
        *("C-layers-2", "C-layers-4", "C-layers-8", "C-d-model-256", "C-d-model-1024"),
        *("C-d-ff-1024", "C-d-ff-4096", "big"),
    ),
    "dropout helps": ("D-dropout-0",),
    "twice the dropout is worse": ("D-dropout-0.2",),
    "label smoothing: worse perplexity, better BLEU": ("D-smoothing-0", "D-smoothing-0.2"),
    "learned positions are about equal": ("E-learned-positions",),
}


class Judgement(NamedTuple):
    """One row compared with the base, by one metric."""

    expected: str  # "higher", "lower" or "equal", from the paper
    difference: float  # of the means; for perplexity of the logarithms
    noise: float
    verdict: str


def expected(name, metric):
    """Returns in which direction the paper's figures of this row differ from the base."""
    row, base = (getattr(TABLE_3[each], metric.name) for each in (name, "base"))
    if abs(row - base) < 1.5 * metric.unit:
        return "equal"
    return "higher" if row > base else "lower"


def judge(figures, metric):
    """Judges whether each row differs from the base as it does in the paper.

    Args:
        figures: `{row: [figure of each seed]}`, including `"base"`.
        metric: `PERPLEXITY` or `BLEU`.

    Returns:
        `{row: Judgement}` of all rows except the base. A row that should be higher is seen if the
        whole interval is above 0, and not seen if all of it is below. A row that should be equal is
        seen if the whole interval is within 2 % of the base, and not seen if all of it is outside.
        Otherwise it is undecided.
    """
    values = {name: np.array(each, float) for name, each in figures.items()}
    band = ABOUT_EQUAL * values["base"].mean()
    if metric is PERPLEXITY:
        values = {name: np.log(each) for name, each in values.items()}
        band = ABOUT_EQUAL
    base = values.pop("base")
    freedom = sum(len(each) - 1 for each in (base, *values.values()))
    squares = sum(((each - each.mean()) ** 2).sum() for each in (base, *values.values()))
    found = {}
    for name, each in values.items():
        difference, noise = each.mean() - base.mean(), metric.one_seed
        if freedom:
            deviation = math.sqrt(squares / freedom)
            noise = student(freedom) * deviation * math.sqrt(1 / len(each) + 1 / len(base))
        direction = expected(name, metric)
        verdict = _verdict(direction, difference - noise, difference + noise, band)
        found[name] = Judgement(direction, float(difference), float(noise), verdict)
    return found


def _verdict(direction, low, high, band):
    if direction == "equal":
        if -band <= low and high <= band:
            return SEEN
        return NOT_SEEN if low > band or high < -band else UNDECIDED
    if direction == "lower":
        low, high = -high, -low
    return SEEN if low > 0 else NOT_SEEN if high < 0 else UNDECIDED


def student(freedom):
    """Returns the two-sided 5 % point of Student's t."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return 1.96 + 2.37 / freedom + 2.82 / freedom**2  # within 0.002; 1.96 is the normal one


def conclude(judgements):
    """Returns `{conclusion: (verdict, [verdicts])}` of those that have rows in `judgements`.

    A conclusion is seen if all its rows are, not seen if one is not, and undecided otherwise.
    """
    found = {}
    for conclusion, rows in CONCLUSIONS.items():
        verdicts = [judgements[name].verdict for name in rows if name in judgements]
        if verdicts:
            whole = SEEN if set(verdicts) == {SEEN} else UNDECIDED
            found[conclusion] = (NOT_SEEN if NOT_SEEN in verdicts else whole, verdicts)
    return found


def summarize(results):
    """Returns rows and conclusions as JSON values.

    Args:
        results: A list of `{"row", "seed", "parameters", "perplexity", "bleu"}`, one per training.
    """
    rows = {}
    for name in TABLE_3:
        of_row = [each for each in results if each["row"] == name]
        if of_row:
            rows[name] = {
                "parameters": of_row[0]["parameters"],
                "seeds": [each["seed"] for each in of_row],
            }
            for metric in (PERPLEXITY, BLEU):
                figures = [each[metric.name] for each in of_row]
                rows[name][metric.name] = {
                    "figures": figures,
                    "mean": float(np.mean(figures)),
                    "deviation": float(np.std(figures, ddof=1)) if len(figures) > 1 else None,
                    "paper": getattr(TABLE_3[name], metric.name),
                }
    summary = {"rows": rows, "conclusions": {}}
    for metric in (PERPLEXITY, BLEU):
        judged = judge({k: row[metric.name]["figures"] for k, row in rows.items()}, metric)
        for name, judgement in judged.items():
            rows[name][metric.name] |= judgement._asdict()
        for conclusion, (verdict, verdicts) in conclude(judged).items():
            counts = {word: verdicts.count(word) for word in sorted(set(verdicts))}
            of_conclusion = summary["conclusions"].setdefault(conclusion, {})
            of_conclusion[metric.name] = {"verdict": verdict, "rows": counts}
    return summary


def table(summary):
    """Returns the summary as text: figures with deviations beside the paper's, then conclusions."""
    lines = [
        f"{'':<20}{'parameters':>12}  {'perplexity':<18}{'paper':>6}  {'as there?':<11}"
        f"{'BLEU':<16}{'paper':>6}  as there?"
    ]
    for name, row in summary["rows"].items():
        perplexity, bleu = row["perplexity"], row["bleu"]
        lines.append(
            f"{name:<20}{row['parameters']:>12,}  {_figure(perplexity):<18}"
            f"{perplexity['paper']:>6.2f}  {perplexity.get('verdict', ''):<11}"
            f"{_figure(bleu):<16}{bleu['paper']:>6.1f}  {bleu.get('verdict', '')}".rstrip()
        )
    lines += ["", f"{'':<48}{'perplexity':<35}BLEU"]
    for conclusion, metrics in summary["conclusions"].items():
        shown = [_shown(metrics[metric.name]) for metric in (PERPLEXITY, BLEU)]
        lines.append(f"{conclusion:<48}{shown[0]:<35}{shown[1]}")
    return "\n".join([*lines, "", _noise(summary)])


def _figure(figures):
    deviation = figures["deviation"]
    return f"{figures['mean']:.2f}" + ("" if deviation is None else f" ({deviation:.2f})")


def _shown(conclusion):
    counts = conclusion["rows"]
    if len(counts) == 1:
        return conclusion["verdict"]
    rows = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{conclusion['verdict']} ({rows})"


def _noise(summary):
    rows = [row for name, row in summary["rows"].items() if name != "base"]
    measured = any(row["bleu"]["deviation"] is not None for row in summary["rows"].values())
    if not rows:
        return "No row to compare with the base yet."
    widest = [max(row[name]["noise"] for row in rows) for name in ("perplexity", "bleu")]
    figures = f"{math.expm1(widest[0]):.1%} of perplexity, {widest[1]:.2f} BLEU"
    if measured:
        return (
            f"In brackets the deviation over seeds. Noise of a difference to the base: up to "
            f"{figures} (95 %, Student's t, deviation pooled over rows)."
        )
    return f"One seed: undecided unless larger than {figures}, which is stated, not measured."


def draw(summary):
    """Draws each row compared with the base, by both metrics, beside the paper's rows."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    colors = {SEEN: "tab:green", NOT_SEEN: "tab:red", UNDECIDED: "tab:gray"}
    rows = {name: row for name, row in summary["rows"].items() if name != "base"}
    figure = Figure(figsize=(11, 2 + 0.32 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, metric in zip(panels, (PERPLEXITY, BLEU), strict=True):
        base = summary["rows"]["base"][metric.name]

        def on_axis(difference, metric=metric):
            return 100 * math.expm1(difference) if metric is PERPLEXITY else difference

        for place, row in enumerate(row[metric.name] for row in rows.values()):
            ends = [on_axis(row["difference"] + sign * row["noise"]) for sign in (-1, 1)]
            color = colors[row["verdict"]]
            panel.plot(ends, [place, place], color=color, linewidth=2, solid_capstyle="butt")
            panel.plot(on_axis(row["difference"]), place, "o", color=color)
            paper = row["paper"] - base["paper"]
            if metric is PERPLEXITY:
                paper = math.log(row["paper"] / base["paper"])
            panel.plot(on_axis(paper), place + 0.25, "D", color="black", mfc="white", markersize=5)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].invert_yaxis()
    mine, papers = (
        [summary["rows"]["base"][metric.name][key] for metric in (PERPLEXITY, BLEU)]
        for key in ("mean", "paper")
    )
    panels[0].set_xlabel("perplexity above the base's, %  (left is better)")
    panels[1].set_xlabel("BLEU above the base's, points  (right is better)")
    panels[0].set_title(f"base: {mine[0]:.2f} here, {papers[0]:.2f} in the paper")
    panels[1].set_title(f"base: {mine[1]:.1f} here, {papers[1]:.1f} in the paper")
    marks = [
        Line2D([], [], color=color, marker="o", linewidth=2, label=f"here, {verdict}")
        for verdict, color in colors.items()
    ]
    marks.append(
        Line2D([], [], color="black", marker="D", mfc="white", ls="", label="the paper's row")
    )
    figure.legend(handles=marks, loc="outside lower center", ncols=4)
    return figure
