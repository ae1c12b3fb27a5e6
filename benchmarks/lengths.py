"""Why translations are too short or too long: where the end is expected, and what each search adds.

    python benchmarks/lengths.py RUN --source val.en --reference val.de
    python benchmarks/lengths.py RUN --source val.en --reference val.de \\
        --train-source train.en --train-target train.de

First the ends of sentences, teacher-forced: a calibrated model expects one per sentence. Then the
words of translations over those of the references, by search. Sampling shows the model's own
distribution, so what it lacks is the model's; what the others lack more is the search's.
"""

import argparse

import numpy as np

import keras_transformer as kt
from keras_transformer.cli import program, without_notices

with without_notices():
    import keras
    from keras import ops

SEARCHES = {
    "greedy": {"beam_size": 1},
    "beam 5, GNMT 0.6": {"beam_size": 5, "length_penalty": 0.6},
    "beam 5, score / length": {"beam_size": 5, "length_penalty": "average"},
}
LENGTHS = (10, 15, 20, 30)  # bounds, in tokens of the reference


def ends(translator, pairs):
    """Returns rows of (tokens, ends expected before the end, chance of an end there), by length."""
    model, tokenizer = translator.models[0], translator.target_tokenizer
    ids = zip(
        translator.encode_sources([source for source, _ in pairs]),
        tokenizer.encode([target for _, target in pairs]),
        strict=True,
    )
    ids = sorted(ids, key=lambda pair: len(pair[1]))
    rows = []
    for start in range(0, len(ids), 64):
        batch = ids[start : start + 64]
        source_ids, target_ids = translator.arrays_of(batch)
        logits = model({"source_ids": source_ids, "target_ids": target_ids}, training=False)
        chances = ops.softmax(ops.cast(logits, "float32"), axis=-1)[..., tokenizer.end_id]
        for (_, target), row in zip(batch, ops.convert_to_numpy(chances), strict=False):
            rows.append((len(target), row[: len(target)].sum(), row[len(target)]))
    return np.array(rows)


def words(lines):
    return sum(len(line.split()) for line in lines)


@program("lengths")
def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--source", required=True)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--train-source", help="to compare how long targets are")
    parser.add_argument("--train-target")
    args = parser.parse_args()
    if (args.train_source is None) != (args.train_target is None):
        parser.error("--train-source and --train-target go together: give both, or neither")
    pairs = kt.data.read_parallel(args.source, args.reference)
    sources, references = zip(*pairs, strict=True)
    translator = kt.load_translator(args.run)

    print("target words per source word")
    print(f"  these references     {words(references) / words(sources):.3f}")
    if args.train_source:
        train = zip(*kt.data.read_parallel(args.train_source, args.train_target), strict=True)
        source, target = (words(side) for side in train)
        print(f"  training             {target / source:.3f}")

    found = ends(translator, pairs)
    print("\nends expected per sentence   before the end   at the end   sentences")
    groups = [("all", found)]
    bounds = (0, *LENGTHS, np.inf)
    for low, high in zip(bounds, bounds[1:], strict=False):
        inside = found[(found[:, 0] >= low) & (found[:, 0] < high)]
        groups.append((f"from {low} tokens", inside))
    for name, rows in groups:
        if len(rows):
            before, there = rows[:, 1].mean(), rows[:, 2].mean()
            print(f"  {name:26} {before:14.3f}   {there:10.3f}   {len(rows):9,}")

    print("\nsearch                       words / the references'   BLEU")
    for name, options in SEARCHES.items():
        show(name, translator.translate(sources, **options), references)
    sampling = kt.decoding.Sampling(seed=1)
    show("sampled", translator.translate(sources, beam_size=1, sampling=sampling), references)


def show(name, hypotheses, references):
    score = kt.evaluation.bleu(hypotheses, references, tokenize="none")
    print(f"  {name:26} {words(hypotheses) / words(references):22.3f}   {score.value:5.2f}")


if __name__ == "__main__":
    keras.utils.set_random_seed(1)
    main()
