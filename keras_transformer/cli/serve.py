"""Answer over HTTP, and show a page for people.

  keras-transformer serve runs/en-de
  curl -H "Content-Type: application/json" -d '{"text": "A man rides a horse ."}' \\
       http://127.0.0.1:8000/translate

Open http://127.0.0.1:8000/ in a browser to type sentences, and to see the alternatives and the
attention of every head. POST /translate and /explain take JSON; GET /health and /metrics are for
programs that watch the server. Requests that wait are translated together.

Only this machine can connect, unless --host names another address. Ctrl-C or SIGTERM ends the
server, after the requests that it has accepted. It needs the extra `serve`."""

import argparse

from keras_transformer.cli.options import (
    add_search_arguments,
    count,
    named,
    parsed,
    positive,
    translator_of,
)


@parsed
def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ValueError(f"expected a number above 0, got {text!r}")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb. Their defaults are those of `kt.serving.Limits`."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines connect")
    parser.add_argument("--port", type=count, default=8000, help="0 is any free one")
    add_search_arguments(parser)
    parser.add_argument(
        "--max-queue", type=positive, default=1024, help="sentences that wait; more get status 503"
    )
    parser.add_argument(
        "--max-seconds", type=seconds, default=60.0, help="for one request; later it is status 504"
    )
    parser.add_argument(
        "--max-bytes", type=positive, default=1_048_576, help="of a request; more get status 413"
    )
    parser.add_argument(
        "--max-sentences", type=positive, default=256, help="in a request; more get status 413"
    )
    parser.add_argument(
        "--max-tokens", type=positive, default=511, help="in a sentence; more get status 413"
    )
    parser.add_argument(
        "--max-searches",
        type=positive,
        default=16,
        help="different searches, each of which is compiled and kept; more get status 400",
    )
    parser.add_argument(
        "--warm-up",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile the usual search before the first request; until then /health has status 503",
    )


def run(args: argparse.Namespace) -> None:
    """Loads the run and serves it until a signal."""
    from keras_transformer import serving
    from keras_transformer.progress import say

    limits = serving.Limits(
        batch_size=args.batch_size,
        queue=args.max_queue,
        seconds=args.max_seconds,
        body_bytes=args.max_bytes,
        sentences=args.max_sentences,
        tokens=args.max_tokens,
        searches=args.max_searches,
        beam_size=max(args.beam_size, serving.Limits.beam_size),
    )
    translator = translator_of(args.run, args)
    say(f"loaded {args.run} (weights: {named(translator.weights)})")
    search = args.beam_size, args.length_penalty
    serving.serve(translator, args.host, args.port, limits, *search, args.warm_up)
