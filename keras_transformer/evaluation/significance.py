"""Is one system better than another, or only luckier with this test set?"""

from keras_transformer import progress
from keras_transformer.evaluation.lines import checked
from keras_transformer.evaluation.scores import bleu_metric, chrf_metric, evaluate


def compare(
    systems, references, tokenize="13a", lowercase=False, error_rates=False, n_samples=1000
):
    """Scores several systems on one test set against the first of them.

    Paired bootstrap resampling (Koehn, 2004) as sacreBLEU does it: the test set is drawn anew
    `n_samples` times, with replacement and the same sentences for all systems. Its seed is 12345,
    or that of the environment variable SACREBLEU_SEED.

    Args:
        systems: Dictionary of a name and a list of hypotheses for each system, the baseline first.
        references: List of strings, one raw reference per hypothesis.
        tokenize: sacreBLEU's tokenizer for BLEU, as in `bleu`.
        lowercase: Whether to ignore case in BLEU.
        error_rates: Whether to add the two error rates, as in `evaluate`.
        n_samples: How many times the test set is drawn.

    Returns:
        A list with the dictionary of `evaluate` for each system, in order, and in it `system`, its
        name, and for each of `bleu`, `chrf` and `chrf++`: `..._signature`, with the number of
        samples and the seed; `..._mean` over the samples; and `..._interval`, the mean minus and
        plus half the width of the middle 95 % of the samples. All but the first have `baseline`,
        the first system's name, and `..._p_value`, the probability of a difference as large as
        theirs if there were none between the systems: below 0.05 by custom, it is no luck. It is 1
        for the very hypotheses of the first.

    Raises:
        ValueError: Fewer than two systems, or as `bleu`.

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
            "other; for one system, evaluate(hypotheses, references)."
        )
    if n_samples < 1:
        raise ValueError(f"Expected at least one sample, got n_samples={n_samples}.")
    checked_systems = []
    for name, hypotheses in systems.items():
        try:
            lines, checked_references = checked(hypotheses, references)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        checked_systems.append((name, lines))
    baseline, baseline_lines = checked_systems[0]
    metrics = {
        "bleu": bleu_metric(tokenize, lowercase),
        "chrf": chrf_metric(),
        "chrf++": chrf_metric(word_order=2),
    }
    samples = {}
    for key, metric in metrics.items():
        test = PairedTest(
            checked_systems, {key: metric}, [checked_references], "bs", n_samples=n_samples
        )
        with progress.work(f"comparing by {key}"):
            signatures, columns = test()
        # One score a test, which sacreBLEU names anew (chrF2, chrF2++), beside the systems' names.
        (signature,), (_, column) = signatures.values(), columns.values()
        samples[key] = [(str(signature), sample) for sample in column]
    results = []
    for number, (name, lines) in enumerate(checked_systems):
        scores = evaluate(lines, checked_references, tokenize, lowercase, error_rates)
        result = {"system": name, **scores}
        if number:
            result["baseline"] = baseline
        for key in metrics:
            result[f"{key}_signature"], sample = samples[key][number]
            mean, half = float(sample.mean), float(sample.ci)  # of NumPy, which JSON does not take
            result[f"{key}_mean"] = round(mean, 4)
            result[f"{key}_interval"] = [round(mean - half, 4), round(mean + half, 4)]
            if number:
                # Where there is no difference at all, sacreBLEU says 1 / (samples + 1).
                same = lines == baseline_lines
                result[f"{key}_p_value"] = 1.0 if same else round(float(sample.p_value), 6)
        results.append(result)
    return results
