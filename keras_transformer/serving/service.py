"""What a server answers, without HTTP: translations and explanations as the types of JSON."""

import asyncio
from typing import Any, NamedTuple

from keras_transformer import visualization
from keras_transformer.decoding import Translator
from keras_transformer.decoding.alignment import over_words
from keras_transformer.ops.capabilities import calls_at_once
from keras_transformer.serving.batching import Batcher, QueueFull
from keras_transformer.serving.counters import Counters
from keras_transformer.serving.limits import Limits
from keras_transformer.serving.requests import Explanation, Refusal, Search, Translation
from keras_transformer.visualization.page import page_data
from keras_transformer.visualization.words import words_of


class Searching(NamedTuple):
    """The kind of a batch of translations: requests that share it are translated together."""

    beam_size: int
    length_penalty: float | str
    many: bool  # whether all results of the beam are wanted


class Explaining(NamedTuple):
    """The kind of a batch of explanations."""

    target: str | None
    search: Searching


class Service:
    """Answers requests by one translator, in batches, within limits.

    Args:
        translator: A `Translator`.
        limits: What is accepted.
        defaults: The search of requests that ask for no other.
    """

    def __init__(self, translator: Translator, limits: Limits, defaults: Search) -> None:
        self.translator = translator
        self.limits = limits
        self.defaults = defaults
        self.counters = Counters()
        # So many that all cores have a batch.
        most = limits.batch_size * calls_at_once()
        self.batcher = Batcher(self._work, most, limits.queue)
        self._searches = {_searching(defaults), _searching(defaults)._replace(many=True)}

    async def translate(self, asked: Translation) -> list[dict[str, Any]]:
        """Returns an answer for each text, in order.

        Raises:
            Refusal: If a text is too long, the queue is full, the time is over, or the translator
                fails.
        """
        warnings = await asyncio.to_thread(self._read, asked.texts, self.limits.tokens)
        found = await self._result(self._admitted(asked.search), asked.texts)
        answers = []
        for hypotheses, said in zip(found, warnings, strict=True):
            best = hypotheses[0]
            answer = {"translation": best.text, "score": best.score, "warnings": said}
            if asked.search.n_best > 1:
                answer["n_best"] = [
                    {"translation": each.text, "score": each.score}
                    for each in hypotheses[: asked.search.n_best]
                ]
            answers.append(answer)
        return answers

    async def explain(self, asked: Explanation) -> dict[str, Any]:
        """Returns the tokens of a sentence and its translation, and the attention of every head.

        Raises:
            Refusal: As `translate`, or if the sentence is empty, or the model has no attention to
                show.
        """
        models = self.translator.models
        if len(models) != 1 or not hasattr(models[0], "attention_weights"):
            what = "an ensemble" if len(models) != 1 else f"a {type(models[0]).__name__}"
            raise Refusal(501, f"This server runs {what}. Only one Transformer can be explained.")
        texts, longest = [asked.text], self.limits.explained_tokens
        if not asked.text.strip():
            raise Refusal(400, 'There is nothing to explain: "text" is empty.')
        await asyncio.to_thread(self._read, texts, longest, asked.target)
        kind = Explaining(asked.target, self._admitted(asked.search))
        [found] = await self._result(kind, texts)
        return found

    def _read(self, texts, longest, target=None):
        """Returns what training never saw of each text. Refuses texts that are too long."""
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

    def _admitted(self, search):
        """Returns the kind of a search. Few kinds are accepted, since each is compiled and kept."""
        kind = _searching(search)
        if kind not in self._searches and len(self._searches) >= self.limits.searches:
            known = sorted(
                {f"({each.beam_size}, {each.length_penalty})" for each in self._searches}
            )
            raise Refusal(
                400,
                f"beam_size={kind.beam_size} and length_penalty={kind.length_penalty} would be one "
                f"search more than the {self.limits.searches} that this server keeps. Use one of "
                f"these pairs: {', '.join(known)}.",
            )
        self._searches.add(kind)
        return kind

    async def _result(self, kind, texts):
        """Waits for the results of a request, one per text."""
        limits = self.limits
        try:
            future = self.batcher.submit(kind, texts)
        except QueueFull as error:
            raise Refusal(
                503,
                f"The queue is full: {error.waiting} of {limits.queue} sentences wait, and this "
                f"request has {len(texts)}. Try again later.",
            ) from None
        except RuntimeError as error:
            raise Refusal(503, str(error)) from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), limits.seconds)
        except TimeoutError:
            raise Refusal(
                504,
                f"No result within {limits.seconds:g} seconds, the limit of this server. Send "
                "fewer or shorter sentences, or try again later.",
            ) from None

    def _work(self, kind, texts):
        """Answers a batch, in the thread of the batcher."""
        try:
            if isinstance(kind, Explaining):
                return [self._explained(text, kind) for text in texts]
            return self._translated(texts, kind)
        except Exception:
            self.counters.add(failures_total=1)
            raise

    def _translated(self, texts, kind):
        beam_size, length_penalty, many = kind
        n, batch_size = beam_size if many else 1, self.limits.batch_size
        found = self.translator.n_best(texts, n, beam_size, length_penalty, batch_size)
        self.counters.add(
            batches_total=1,
            sentences_total=len(texts),
            source_tokens_total=sum(map(len, self.translator.encode_sources(texts))),
            target_tokens_total=sum(len(hypotheses[0].ids) for hypotheses in found),
        )
        return found

    def _explained(self, text, kind):
        target, (beam_size, length_penalty, _) = kind
        found = visualization.explain(
            self.translator, text, target, beam_size, length_penalty, tree=False
        )
        data = page_data(found)
        for name in ("summary", "nodes", "best", "letters", "shapes"):
            del data[name]
        words, numbers = words_of(found.output_pieces)
        _, source_numbers = words_of(found.source_pieces)
        # What the decoder looked at when it chose each word. In `weights` a row is what it read.
        chosen = over_words(found.weights["cross"], numbers, source_numbers)
        return {
            **data,
            "warnings": found.warnings,
            "output_words": words,
            "choosing": chosen.astype("float64").round(4).tolist(),
        }


def _searching(search: Search) -> Searching:
    return Searching(search.beam_size, search.length_penalty, search.n_best > 1)
