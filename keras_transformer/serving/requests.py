"""What clients send: JSON, checked field by field."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_transformer import arguments
from keras_transformer.decoding import Sampling, SearchOptions
from keras_transformer.serving.limits import Limits


class Refusal(Exception):
    """A request that is not answered, with the HTTP status and a sentence that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Search(NamedTuple):
    """The options of a search, as in `Translator.n_best`."""

    beam_size: int = 4
    length_penalty: float | str = 0.6
    n_best: int = 1
    options: SearchOptions = SearchOptions()


class Sentence(NamedTuple):
    """A text, how its translation begins, and the phrases that it must hold."""

    text: str
    prefix: str | None = None
    terminology: tuple[str, ...] = ()


class Translation(NamedTuple):
    """A request to translate."""

    sentences: list[Sentence]
    single: bool  # whether it had "text", not "texts"
    search: Search
    beside: tuple[str, ...] = ()  # which of BESIDE come with each translation
    split: str | None = None  # the language by whose rules texts are split into sentences
    tags: bool = False  # whether tags and placeholders are taken out and put back


class Explanation(NamedTuple):
    """A request to explain one sentence."""

    text: str
    target: str | None
    search: Search


SEARCH = ("beam_size", "length_penalty")
SAMPLING = tuple(field.name for field in dataclasses.fields(Sampling))
# Functions of users cannot be sent.
OPTIONS = tuple(field.name for field in dataclasses.fields(SearchOptions) if field.name != "adjust")
OF_TEXTS = ("prefix", "terminology")
BESIDE = ("alignments", "token_scores")
STRUCTURE = ("split", "tags")
# Beyond these float32 overflows. 0 is a temperature too.
LEAST = {"temperature": 0.01, "repetition_penalty": 0.01}
MOST = {"temperature": 100, "repetition_penalty": 100, "diversity": 100, "seed": 2**53}


def read_translation(body: bytes, limits: Limits, defaults: Search) -> Translation:
    """Reads the body of `POST /translate`.

    Raises:
        Refusal: If it is no JSON object, or has a field that is unknown, wrong or beyond a limit.
    """
    known = ("text", "texts", *SEARCH, "n_best", *OF_TEXTS, *OPTIONS, *BESIDE, *STRUCTURE)
    fields = _object(body, known)
    if ("text" in fields) == ("texts" in fields):
        given = "both" if "text" in fields else "neither"
        raise Refusal(400, f'Give "text" (a string) or "texts" (a list of strings), got {given}.')
    single = "text" in fields
    texts = [fields["text"]] if single else fields["texts"]
    if not isinstance(texts, list):
        raise Refusal(400, f'"texts" is a list of strings, got {_shown(texts)}.')
    if not 1 <= len(texts) <= limits.sentences:
        raise Refusal(
            413 if texts else 400,
            f"A request has between 1 and {limits.sentences} texts, got {len(texts)}. Send several "
            "requests.",
        )
    for place, text in enumerate(texts):
        _checked(arguments.string, text, '"text" is' if single else f'"texts" has at index {place}')
    for name in (*BESIDE, "tags"):
        if not isinstance(fields.get(name, False), bool):
            raise Refusal(400, f'"{name}" is true or false, got {_shown(fields[name])}.')
    return Translation(
        list(map(Sentence, texts, _prefixes(fields, texts), _phrases(fields, texts, single))),
        single,
        _search(fields, limits, defaults),
        tuple(name for name in BESIDE if fields.get(name)),
        **_structure(fields),
    )


def read_explanation(body: bytes, limits: Limits, defaults: Search) -> Explanation:
    """Reads the body of `POST /explain`; see `read_translation`."""
    fields = _object(body, ("text", "target", *SEARCH))
    if "text" not in fields:
        raise Refusal(400, 'Give "text", the sentence to explain: a string.')
    for name in ("text", "target"):
        if name in fields:
            _checked(arguments.string, fields[name], f'"{name}" is')
    return Explanation(fields["text"], fields.get("target"), _search(fields, limits, defaults))


def _object(body, known: Sequence[str]) -> dict[str, Any]:
    """Returns the fields of a JSON object, which must be known."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(
            400, f'The body is no JSON: {error}. Send an object such as {{"text": "..."}}.'
        ) from None
    if not isinstance(found, dict):
        raise Refusal(400, f'The body is a JSON object, {{"text": "..."}}, got {_shown(found)}.')
    if unknown := sorted(set(found) - set(known)):
        raise Refusal(
            400, f"Unknown field {_shown(unknown[0])}. The fields are: {', '.join(known)}."
        )
    return found


def _structure(fields):
    """Whether texts are split into sentences, or have tags."""
    split, tags = (fields.get(name) for name in STRUCTURE)
    if split is not None and not (isinstance(split, str) and re.fullmatch("[a-z]{2,3}", split)):
        raise Refusal(
            400,
            f'"split" is the code of the sources\' language, such as "en"; got {_shown(split)}.',
        )
    for name in STRUCTURE:
        excluded = ("token_scores", *(OF_TEXTS if name == "split" else ()))
        given = [other for other in excluded if fields.get(other)]
        given += ["n_best"] if fields.get("n_best", 1) != 1 else []
        if fields.get(name) and given:
            raise Refusal(400, f'"{given[0]}" does not go with "{name}": leave it out.')
    return {"split": split, "tags": bool(tags)}


def _prefixes(fields, texts):
    """How each translation begins."""
    prefix = fields.get("prefix")
    found = prefix if isinstance(prefix, list) and "texts" in fields else [prefix] * len(texts)
    if len(found) != len(texts):
        raise Refusal(
            400,
            '"prefix" is one string, or a list with one for each of "texts"; got '
            f"{len(found)} for {len(texts)} texts.",
        )
    for each in found:
        if each is not None:
            _checked(arguments.string, each, '"prefix" is')
    return found


def _phrases(fields, texts, single):
    """The phrases that each translation must hold."""
    given = fields.get("terminology")
    found = [given] * len(texts) if single or given is None else given
    if not isinstance(found, list) or len(found) != len(texts):
        raise Refusal(
            400,
            '"terminology" is a list of phrases for "text", and a list with such a list, or null, '
            f'for each of "texts"; got {_shown(given)} for {len(texts)} texts.',
        )
    for each in found:
        if each is not None:
            _checked(arguments.strings, each, "terminology")
    return [tuple(each or ()) for each in found]


def _options(fields, limits: Limits) -> SearchOptions:
    """What a translation must and may hold."""
    given = {name: fields[name] for name in OPTIONS if name in fields}
    drawn = given.get("sampling")
    if drawn is not None:
        if not isinstance(drawn, dict) or set(drawn) - set(SAMPLING):
            raise Refusal(
                400,
                f'"sampling" is an object with some of {", ".join(SAMPLING)}, got {_shown(drawn)}.',
            )
        given["sampling"] = _checked(Sampling, **drawn)
    words = given.get("suppress", ())
    if isinstance(words, list) and len(words) > limits.suppressed:
        raise Refusal(
            400, f"suppress has at most {limits.suppressed} words here, got {len(words)}."
        )
    found = _checked(SearchOptions, **given)
    lengths = dict.fromkeys(("min_length", "max_length"), limits.tokens)
    most = {**MOST, **lengths, "no_repeat_ngram": limits.ngram}
    for name, value in {**vars(found), **vars(found.sampling or Sampling())}.items():
        if name in most and value is not None and value > most[name]:
            raise Refusal(400, f"{name} is at most {most[name]} here, got {value}.")
        if name in LEAST and 0 < value < LEAST[name]:
            raise Refusal(400, f"{name} is at least {LEAST[name]} here, got {value}.")
    return found


def _search(fields, limits: Limits, defaults: Search) -> Search:
    beam_size, penalty, n_best = (
        fields.get(name, getattr(defaults, name)) for name in (*SEARCH, "n_best")
    )
    options = _options(fields, limits)
    advice = "1 is greedy search."
    _checked(arguments.whole_number, "beam_size", beam_size, advice=advice)
    _checked(arguments.length_penalty, penalty)
    _checked(arguments.whole_number, "n_best", n_best, advice="It is the number of results.")
    if beam_size > limits.beam_size:
        raise Refusal(400, f"beam_size is at most {limits.beam_size} here, got {beam_size}.")
    if options.sampling is not None:
        if n_best > limits.beam_size:
            raise Refusal(400, f"n_best is at most {limits.beam_size} here, got {n_best}.")
    elif n_best > beam_size:
        raise Refusal(
            400,
            f"n_best is at most beam_size, got n_best={n_best} and beam_size={beam_size}. "
            "Raise beam_size, or ask for fewer.",
        )
    return Search(beam_size, penalty, n_best, options)


def _checked(check, *given, **options):
    """Returns what a check returns, and refuses what it refuses."""
    try:
        return check(*given, **options)
    except (ValueError, OverflowError) as error:  # an integer may be too large for a float
        raise Refusal(400, str(error)) from None


def _shown(value: Any) -> str:
    """Returns the beginning of a value as JSON."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:80]}..."
