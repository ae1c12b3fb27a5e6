"""Options and arguments that several verbs share."""

import argparse
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_transformer import arguments
from keras_transformer.runs import options

if TYPE_CHECKING:
    from keras_transformer.decoding import Translator


def parsed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Makes argparse show the message of a ValueError that `parse` raises."""

    def parse_option(text):
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_option


positive = parsed(options.positive)
count = parsed(options.count)


@parsed
def penalty(text: str) -> float | str:
    """A length penalty: a number from 0 to 10, or "average"."""
    value: float | str = text
    with contextlib.suppress(ValueError):
        value = float(text)
    return arguments.length_penalty(value)


SEARCH = "beam_size", "length_penalty"
MODEL = "weights", "ensemble"


def add_beam_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that choose a result, the same wherever a search runs."""
    parser.add_argument("--beam-size", type=positive, default=4, help="1 is greedy search")
    parser.add_argument(
        "--length-penalty",
        type=penalty,
        default=0.6,
        metavar="ALPHA",
        help="alpha of the GNMT penalty ((5 + length) / 6)^alpha, or 'average': score / length",
    )


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `translate` and `evaluate`."""
    add_beam_arguments(parser)
    parser.add_argument("--batch-size", type=positive, default=64, help="sentences at once")
    parser.add_argument(
        "--engine",
        choices=("keras", "ctranslate2", "auto"),
        default="keras",
        help="ctranslate2: translate by that engine, which is often faster on CPUs; the run is "
        "converted once. auto: by that where it is installed and can do what is asked",
    )
    parser.add_argument(
        "--compile-cache",
        action="store_true",
        help="keep what JAX compiles in the user's cache, so that the next start need not compile",
    )
    parser.add_argument(
        "--quantization",
        metavar="TYPE",
        help="the type of the weights in ctranslate2, such as int8; float32 by default",
    )
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that choose weights, the same wherever a run is read."""
    parser.add_argument(
        "--weights",
        metavar="WHICH",
        help="average, best, last, or an update; by default the average, or the last if there is "
        "none or the last were better in validation; several with commas (8000,9000) make an "
        "ensemble",
    )
    parser.add_argument(
        "--ensemble",
        nargs="+",
        metavar="RUN",
        help="decode with these runs too, which have the same vocabulary, by the mean of the "
        "probabilities; give it after RUN",
    )


CONSTRAINTS = (
    *("min_length", "max_length", "no_repeat_ngram", "repetition_penalty", "diversity"),
    "suppress",
)


def add_constraint_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """A prefix, and CONSTRAINTS: those fields of `kt.decoding.SearchOptions`."""
    group = parser.add_argument_group("what a translation must and may hold")
    group.add_argument("--prefix", metavar="TEXT", help="how each translation begins")
    group.add_argument("--min-length", type=count, default=0, metavar="N", help="in tokens")
    group.add_argument(
        "--max-length",
        type=positive,
        metavar="N",
        help="in tokens; by default 50 more than the source has",
    )
    group.add_argument(
        "--no-repeat-ngram",
        type=count,
        default=0,
        metavar="N",
        help="no sequence of N tokens occurs twice; 0 allows all",
    )
    group.add_argument(
        "--repetition-penalty",
        type=parsed(options.size),
        default=1.0,
        metavar="X",
        help="multiplies the log-probability of tokens that are there already",
    )
    group.add_argument(
        "--diversity",
        type=parsed(options.Number(float, least=0)),
        default=0.0,
        metavar="X",
        help="lowers a token by X nats for each more probable one, so that the hypotheses of a "
        "beam differ more; try 0.5",
    )
    group.add_argument(
        "--suppress", nargs="+", default=[], metavar="WORD", help="words that are not written"
    )
    return group


def add_content_arguments(parser: argparse.ArgumentParser) -> None:
    """What the translations of lines must and may hold, and how they are drawn."""
    group = add_constraint_arguments(parser)
    group.add_argument(
        "--prefixes", metavar="FILE", help="how translations begin, one line per line of input"
    )
    group.add_argument(
        "--terminology",
        metavar="FILE",
        help="phrases that each translation must hold, separated by tabs, one line per line of "
        "input",
    )
    group = parser.add_argument_group("sampling, instead of a beam")
    group.add_argument("--sample", action="store_true", help="draw each token at random")
    group.add_argument(
        "--temperature",
        type=parsed(options.Number(float, least=0)),
        default=1.0,
        metavar="T",
        help="below 1 probable tokens become more probable",
    )
    group.add_argument("--top-k", type=positive, metavar="K", help="draw from the K most probable")
    group.add_argument(
        "--top-p",
        type=parsed(options.share),
        metavar="P",
        help="draw from the most probable tokens that together have the probability P",
    )
    group.add_argument(
        "--seed", type=parsed(options.random_seed), default=0, help="the same seed draws the same"
    )


def content_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Translator.translate` for these options."""
    from keras_transformer.decoding import Sampling

    if not args.sample:
        refuse_ignored(args, ("temperature", "top_k", "top_p", "seed"), "--sample")
    found = {name: getattr(args, name) for name in CONSTRAINTS}
    if args.sample:
        found["sampling"] = Sampling(args.temperature, args.top_k, args.top_p, args.seed)
    return found


def refuse_ignored(args: argparse.Namespace, names: Sequence[str], needed: str) -> None:
    """Refuses options that were given and have no effect; `needed` says beside what they have.

    Raises:
        ValueError: If one of `names` differs from its default.
    """
    for name in names:
        if getattr(args, name) != args.default_of(name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} has an effect only with {needed}: leave it out.")


def named(weights: Any) -> str:
    """Returns a translator's weights as a name: "last", or "3000, average" for an ensemble."""
    return ", ".join(map(str, weights)) if isinstance(weights, list) else str(weights)


def translator_of(run: str, args: argparse.Namespace) -> "Translator":
    """The translator that `run`, --ensemble and --weights name."""
    from keras_transformer.runs.loading import load_translator

    weights = args.weights and args.weights.split(",")
    options = {}
    if getattr(args, "engine", "keras") != "keras":
        options = {"engine": args.engine, "quantization": args.quantization or "float32"}
    elif "engine" in args:
        refuse_ignored(args, ["quantization"], "--engine ctranslate2")
    return load_translator([run, *(args.ensemble or [])], weights, **options)
