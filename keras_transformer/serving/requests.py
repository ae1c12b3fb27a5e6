"""What clients send: JSON, checked field by field."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_transformer import arguments
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


class Translation(NamedTuple):
    """A request to translate."""

    texts: list[str]
    single: bool  # whether it had "text", not "texts"
    search: Search


class Explanation(NamedTuple):
    """A request to explain one sentence."""

    text: str
    target: str | None
    search: Search


SEARCH = ("beam_size", "length_penalty")


def read_translation(body: bytes, limits: Limits, defaults: Search) -> Translation:
    """Reads the body of `POST /translate`.

    Raises:
        Refusal: If it is no JSON object, or has a field that is unknown, wrong or beyond a limit.
    """
    fields = _object(body, ("text", "texts", *SEARCH, "n_best"))
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
    return Translation(texts, single, _search(fields, limits, defaults))


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


def _search(fields, limits: Limits, defaults: Search) -> Search:
    beam_size, penalty, n_best = (
        fields.get(name, default) for name, default in zip(Search._fields, defaults, strict=True)
    )
    advice = "1 is greedy search."
    _checked(arguments.whole_number, "beam_size", beam_size, advice=advice)
    _checked(arguments.length_penalty, penalty)
    _checked(arguments.whole_number, "n_best", n_best, advice="It is the number of results.")
    if beam_size > limits.beam_size:
        raise Refusal(400, f"beam_size is at most {limits.beam_size} here, got {beam_size}.")
    if n_best > beam_size:
        raise Refusal(
            400,
            f"n_best is at most beam_size, got n_best={n_best} and beam_size={beam_size}. "
            "Raise beam_size, or ask for fewer.",
        )
    return Search(beam_size, penalty, n_best)


def _checked(check, *given, **options):
    """Calls a check of `arguments`, and refuses what it refuses."""
    try:
        check(*given, **options)
    except (ValueError, OverflowError) as error:  # an integer may be too large for a float
        raise Refusal(400, str(error)) from None


def _shown(value: Any) -> str:
    """Returns the beginning of a value as JSON."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:80]}..."
