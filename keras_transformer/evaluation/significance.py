"""Is one system better than another, or only luckier with this test set?"""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_transformer import progress
from keras_transformer.evaluation.lines import checked_with_more
from keras_transformer.evaluation.scores import bleu_metric, chrf_metric, evaluate


def compare(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    tokenize: str = "13a",
    lowercase: bool = False,
    error_rates: bool = False,
    n_samples: int = 1000,
    more_references: Sequence[Sequence[str]] = (),
) -> list[dict[str, Any]]:
    """Scores several systems on one test set and compares them with the first.

    This is paired bootstrap resampling (Koehn, 2004) by sacreBLEU: the test set is drawn
    `n_samples` times with replacement, with the same sentences for all systems. The seed is 12345,
    or that of the environment variable SACREBLEU_SEED.

    Args:
        systems: `{name: hypotheses}`, the baseline first.
        references, tokenize, lowercase, error_rates: As in `evaluate`.
        n_samples: How many times the test set is drawn.
        more_references: As in `bleu`.

    Returns:
        The dictionary of `evaluate` for each system, in order. It also has `system`, the name, and
        for each of `bleu`, `chrf` and `chrf++`: `..._signature`, with the number of samples and the
        seed; `..._mean` over the samples; and `..._interval`, the mean minus and plus half the
        width of the middle 95 % of the samples. All but the first have `baseline`, the first
        system's name, and `..._p_value`, the probability of so large a difference if the systems
        were equally good. Below 0.05 is usually called significant. It is 1 for identical output.

    Raises:
        ValueError: If there are fewer than two systems, or as in `bleu`.

    Example:

    ```python
    first, second = compare({"base": hypotheses, "big": others}, references)
    second["bleu"] - first["bleu"], second["bleu_p_value"]
    ```
    """
    from sacrebleu.significance import PairedTest

    if len(systems) < 2:
        raise ValueError(
            f"Got {len(systems)} system(s) to compare: expected the baseline and at least one "
            "other. For a single system call evaluate(hypotheses, references)."
        )
    if n_samples < 1:
        raise ValueError(f"Expected at least one sample, got n_samples={n_samples}.")
    checked_systems: list[tuple[str, Any]] = []
    for name, hypotheses in systems.items():
        try:
            lines, sets = checked_with_more(hypotheses, references, more_references)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        checked_systems.append((name, lines))
    baseline, baseline_lines = checked_systems[0]
    metrics = {
        "bleu": bleu_metric(tokenize, lowercase),
        "chrf": chrf_metric(),
        "chrf++": chrf_metric(word_order=2),
    }
    samples: dict[str, list[tuple[str, Any]]] = {}
    for key, metric in metrics.items():
        test = PairedTest(checked_systems, {key: metric}, sets, "bs", n_samples=n_samples)
        with progress.work(f"comparing by {key}"):
            signatures, columns = test()
        # The columns are the systems' names and one score, under sacreBLEU's name (chrF2++).
        (signature,), (_, column) = signatures.values(), columns.values()
        samples[key] = [(str(signature), sample) for sample in column]
    results = []
    for number, (name, lines) in enumerate(checked_systems):
        scores = evaluate(lines, sets[0], tokenize, lowercase, error_rates, sets[1:])
        result = {"system": name, **scores}
        if number:
            result["baseline"] = baseline
        for key in metrics:
            result[f"{key}_signature"], sample = samples[key][number]
            mean, half = float(sample.mean), float(sample.ci)  # JSON takes no NumPy numbers
            result[f"{key}_mean"] = round(mean, 4)
            result[f"{key}_interval"] = [round(mean - half, 4), round(mean + half, 4)]
            if number:
                # For identical output sacreBLEU gives 1 / (samples + 1).
                same = lines == baseline_lines
                result[f"{key}_p_value"] = 1.0 if same else round(float(sample.p_value), 6)
        results.append(result)
    return results
