"""Which requests a server answers: decided before they wait, by limits and by the translator."""

from collections.abc import Hashable, Sequence
from typing import Any

from keras_transformer.decoding import Sampling, SearchOptions, Translator
from keras_transformer.serving.limits import Limits
from keras_transformer.serving.requests import OF_TEXTS, Refusal, Search, Sentence

# Options of which each value is another compiled search, and those that never make one.
COMPILED = ("no_repeat_ngram", "top_k")
FREE = ("max_length", "temperature", "seed")


def keywords_of(search: Search, sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Returns the keyword arguments of `Translator.n_best`."""
    return {
        "prefix": [each.prefix for each in sentences],
        "terminology": [each.terminology for each in sentences],
        **vars(search.options),
    }


class Admission:
    """Refuses what a translator cannot answer within limits. Its methods raise `Refusal`.

    Args:
        translator: A `Translator`.
        limits: What is accepted.
    """

    def __init__(self, translator: Translator, limits: Limits) -> None:
        self.translator = translator
        self.limits = limits
        self._kinds: dict[Hashable, str] = {}  # the searches that are kept, in words

    def remarks(self, texts: list[str], longest: int, target: str | None = None) -> list[list[str]]:
        """Returns what training never saw of each text. Refuses texts above `longest` tokens."""
        translator = self.translator

        def refuse_long(texts, encoded, side):
            learned = translator.learned_positions(f"{side}_embedding")
            most = longest if learned is None else min(longest, learned - 1)
            for place, (text, ids) in enumerate(zip(texts, encoded, strict=True), start=1):
                if len(ids) > most:
                    which = f"{side} text {place} of {len(texts)}" if len(texts) > 1 else side
                    raise Refusal(
                        413,
                        f"The {which} has {len(ids)} tokens, and at most {most} are allowed here. "
                        f"Split it into sentences. It begins {text[:80]!r}.",
                    )

        refuse_long(texts, translator.encode_sources(texts), "source")
        if target is not None:
            refuse_long([target], translator.target_tokenizer.encode([target]), "target")
        return [translator.remarks(text) for text in texts]

    def check_attention(self, one_model: bool = False) -> None:
        """Refuses what reads attention weights if the translator has none, or of several models."""
        models = self.translator.models
        if one_model and len(models) > 1:
            raise Refusal(501, "This server runs an ensemble. Only one model can be explained.")
        if not models or not all(hasattr(each, "attention_weights") for each in models):
            what = f"a {type(models[0]).__name__}" if models else "the engine ctranslate2"
            raise Refusal(
                501,
                f"This server runs {what}, which shows no attention: there are no alignments and "
                "no explanations.",
            )

    def kind_of(self, search: Search, sentences: Sequence[Sentence]) -> Hashable:
        """Returns what decides which search is compiled; see `IdTranslator.kind_of`."""
        translator, limits = self.translator, self.limits
        encode = translator.target_tokenizer.encode
        longest = max(map(len, encode([each.prefix or "" for each in sentences])))
        if longest > limits.tokens:
            raise Refusal(
                413,
                f"A prefix has {longest} tokens, and at most {limits.tokens} are allowed here. "
                "Shorten it.",
            )
        most = max(sum(map(len, encode(list(each.terminology)))) for each in sentences)
        if most > limits.phrase_tokens:
            raise Refusal(
                413,
                f"The terminology of a text has {most} tokens, and at most {limits.phrase_tokens} "
                "are allowed here. Ask for fewer phrases.",
            )
        barred = max(map(len, encode(list(search.options.suppress))), default=0)
        if barred > limits.phrase_tokens:
            raise Refusal(
                413,
                f"A word of suppress has {barred} tokens, and at most {limits.phrase_tokens} are "
                "allowed here. Leave it out.",
            )
        try:
            items, wanted = translator.asked(
                [each.text for each in sentences],
                search.n_best,
                *search[:2],
                **keywords_of(search, sentences),
            )
        except ValueError as error:
            raise Refusal(400, str(error)) from None
        return translator.kind_of(items, wanted)

    def admit(self, kind: Hashable, search: Search, sentences: Sequence[Sentence]) -> None:
        """Refuses a search that would be one too many, since each is compiled and kept.

        Args:
            kind: What `kind_of` returned for the other arguments.
            search, sentences: Those of a request.
        """
        described = _described(search, sentences)
        if kind not in self._kinds and len(self._kinds) >= self.limits.searches:
            raise Refusal(
                400,
                f"A search with {described} would be one more than the "
                f"{self.limits.searches} that this server keeps compiled. Ask for one of these: "
                f"{'; '.join(sorted(set(self._kinds.values())))}.",
            )
        self._kinds.setdefault(kind, described)


def _described(search, sentences):
    """What makes a search another one, in the words of a request."""
    given, usual = (
        {**vars(options), **vars(options.sampling or Sampling())}
        for options in (search.options, SearchOptions())
    )
    drawn = given["sampling"] is not None
    found = [] if drawn else [f"beam_size={search.beam_size}"]
    found.append(f"length_penalty={search.length_penalty}")
    found += ["n_best"] if search.n_best > 1 and not drawn else []
    for name, value in given.items():
        if value != usual[name] and name not in FREE:
            found.append(f"{name}={value}" if name in COMPILED else name)
    found += [name for name in OF_TEXTS if any(getattr(each, name) for each in sentences)]
    return ", ".join(found)
