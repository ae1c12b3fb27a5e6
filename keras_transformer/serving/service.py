"""What a server answers, without HTTP: translations and explanations as the types of JSON."""

import asyncio
import itertools
import time
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Any, NamedTuple

from keras_transformer import visualization
from keras_transformer.decoding import Translator, shapes
from keras_transformer.decoding.alignment import over_words
from keras_transformer.decoding.structured import Documents
from keras_transformer.ops.capabilities import calls_at_once
from keras_transformer.progress import say
from keras_transformer.serving.admission import Admission, keywords_of
from keras_transformer.serving.batching import Batcher, QueueFull
from keras_transformer.serving.counters import Counters
from keras_transformer.serving.limits import Limits
from keras_transformer.serving.requests import Explanation, Refusal, Search, Sentence, Translation
from keras_transformer.visualization.page import page_data
from keras_transformer.visualization.words import words_of


class Searching(NamedTuple):
    """The kind of a batch of translations: requests that share it are translated together."""

    search: Search
    beside: tuple[str, ...]
    compiled: Hashable  # see `IdTranslator.kind_of`
    alone: int | None  # differs between requests that must not share a batch


class Explaining(NamedTuple):
    """The kind of a batch of explanations."""

    target: str | None
    search: Search


class Warming(NamedTuple):
    """The kind of a job that has no text, and compiles the usual search for one shape."""

    width: int
    rows: int
    n_best: int


# The widths of sources that `warm_up` compiles for: sentences of up to 31 tokens.
WIDTHS = shapes.COARSE_LENGTHS[:2]


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
        self.admission = Admission(translator, limits)
        self._alone = itertools.count()
        self._warming: list[Future] = []
        for count in sorted({1, defaults.beam_size})[: limits.searches]:
            usual = defaults._replace(n_best=count), [Sentence("")]
            self.admission.admit(self.admission.kind_of(*usual), *usual)

    @property
    def state(self) -> str:
        """What the service does: "warming up", "ok" or "ending"."""
        if not self.batcher.alive:
            return "ending"
        return "ok" if all(each.done() for each in self._warming) else "warming up"

    def start(self, warm_up: bool) -> None:
        """Starts the thread that translates. With `warm_up` it first compiles the usual shapes.

        These are the search of the defaults for sentences of up to 31 tokens, one or several at
        once, and its whole beam for a single one, as the page asks.
        """
        begin = time.perf_counter()

        def said(last):
            if last.cancelled():
                return
            if error := last.exception():
                say(f"warning: the usual search was not compiled in advance: {error}")
            count, seconds = self.translator.compiled_shapes, time.perf_counter() - begin
            say(f"ready: compiled {count} shape(s) in {seconds:.1f} s")

        if warm_up:
            rows = [r for r in shapes.ROWS if r <= shapes.rows_for(self.limits.batch_size)]
            usual = [(count, 1) for count in rows]
            if self.defaults.beam_size > 1:
                usual.append((rows[0], self.defaults.beam_size))
            # One job for each shape, so that the end need not wait for all.
            self._warming = [
                self.batcher.submit(Warming(width, *each), []) for width in WIDTHS for each in usual
            ]
            self._warming[-1].add_done_callback(said)
        self.batcher.start()

    def close(self) -> None:
        """Answers the requests that wait, and ends the thread."""
        for each in self._warming:
            each.cancel()
        self.batcher.close()

    async def translate(self, asked: Translation) -> list[dict[str, Any]]:
        """Returns an answer for each text, in order.

        Raises:
            Refusal: If a text is too long, the queue is full, the time is over, or the translator
                fails.
        """
        if asked.split is not None or asked.tags:
            return await self._structured(asked)
        warnings, compiled = await asyncio.to_thread(self._prepared, asked)
        search = _whole_beam(asked.search)
        self.admission.admit(compiled, search, asked.sentences)
        # Draws depend on a sentence's place in its request.
        alone = None if search.options.sampling is None else next(self._alone)
        kind = Searching(search, asked.beside, compiled, alone)
        found = await self._result(kind, asked.sentences)
        answers = []
        for hypotheses, said in zip(found, warnings, strict=True):
            # There is none if the options allow none.
            best = hypotheses[0] if hypotheses else {"translation": "", "score": None}
            answer = {**best, "warnings": said}
            if asked.search.n_best > 1:
                answer["n_best"] = hypotheses[: asked.search.n_best]
            answers.append(answer)
        return answers

    async def _structured(self, asked):
        """As `translate`, for texts of several sentences or with tags."""
        texts = [each.text for each in asked.sentences]
        try:
            documents = await asyncio.to_thread(Documents, texts, asked.split, asked.tags)
        except ValueError as error:
            raise Refusal(501, str(error)) from None
        if len(documents.sources) > self.limits.sentences:
            raise Refusal(
                413,
                f"The texts have {len(documents.sources)} sentences, and at most "
                f"{self.limits.sentences} are allowed here. Send several requests.",
            )
        if asked.split is None:  # a sentence for each text, with its prefix and its terminology
            pairs = zip(asked.sentences, documents.sources, strict=True)
            sentences = [each._replace(text=source) for each, source in pairs]
        else:
            sentences = list(map(Sentence, documents.sources))
        aligned = ("alignments",) if asked.tags or asked.beside else ()
        wanted = asked._replace(sentences=sentences, beside=aligned, split=None, tags=False)
        found = await self.translate(wanted) if sentences else []
        joined = documents.join((each["translation"], each.get("alignments")) for each in found)
        answers = []
        for (text, links), parts in zip(joined, documents.grouped(found), strict=True):
            said = dict.fromkeys(warning for part in parts for warning in part["warnings"])
            score = parts[0]["score"] if len(parts) == 1 else None
            answer = {"translation": text, "score": score, "warnings": list(said)}
            answers.append({**answer, "alignments": links} if asked.beside else answer)
        return answers

    def _prepared(self, asked):
        """Returns what training never saw of the texts, and what their search is compiled for."""
        texts = [each.text for each in asked.sentences]
        warnings = self.admission.remarks(texts, self.limits.tokens)
        if "alignments" in asked.beside:
            self.admission.check_attention()
        return warnings, self.admission.kind_of(_whole_beam(asked.search), asked.sentences)

    async def explain(self, asked: Explanation) -> dict[str, Any]:
        """Returns the tokens of a sentence and its translation, and the attention of every head.

        Raises:
            Refusal: As `translate`, or if the sentence is empty, or the model has no attention to
                show.
        """
        usual = asked.search, [Sentence(asked.text)]
        compiled = await asyncio.to_thread(self._prepared_explanation, asked, usual)
        self.admission.admit(compiled, *usual)
        [found] = await self._result(Explaining(asked.target, asked.search), [asked.text])
        return found

    def _prepared_explanation(self, asked, usual):
        """Returns what the search of a sentence is compiled for, if it can be explained."""
        self.admission.check_attention(one_model=True)
        if not asked.text.strip():
            raise Refusal(400, 'There is nothing to explain: "text" is empty.')
        self.admission.remarks([asked.text], self.limits.explained_tokens, asked.target)
        return self.admission.kind_of(*usual)

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
            if isinstance(kind, Warming):
                self._compile(*kind)
                return []
            if isinstance(kind, Explaining):
                return [self._explained(text, kind) for text in texts]
            return self._translated(texts, kind)
        except Exception:
            self.counters.add(failures_total=1)
            raise

    def _compile(self, width, rows, n_best):
        _, wanted = self.translator.asked([], n_best, *self.defaults[:2])
        self.translator.compile_search(wanted, width, rows)

    def _translated(self, sentences, kind):
        translator, search = self.translator, kind.search
        batch_size = self.limits.batch_size
        texts = [each.text for each in sentences]
        found = translator.n_best(
            texts, search.n_best, *search[:2], batch_size, **keywords_of(search, sentences)
        )
        self.counters.add(
            batches_total=1,
            sentences_total=len(texts),
            source_tokens_total=sum(map(len, translator.encode_sources(texts))),
            target_tokens_total=sum(len(some[0].ids) for some in found if some),
        )
        answers = [
            [{"translation": each.text, "score": each.score} for each in some] for some in found
        ]
        pairs = [
            (text, each.ids)
            for text, hypotheses in zip(texts, found, strict=True)
            for each in hypotheses
        ]
        flat = [answer for some in answers for answer in some]
        if "token_scores" in kind.beside:
            scores = translator.token_log_probabilities(pairs, batch_size)
            tokenizer = translator.target_tokenizer
            for answer, (_, ids), each in zip(flat, pairs, scores, strict=True):
                pieces = [tokenizer.id_to_piece(id) for id in (*ids, tokenizer.end_id)]
                answer |= {"tokens": pieces, "token_scores": each}
        if "alignments" in kind.beside:
            links = translator.align(pairs, batch_size)
            for answer, each in zip(flat, links, strict=True):
                answer["alignments"] = each
        return answers

    def _explained(self, text, kind):
        target, (beam_size, length_penalty, *_) = kind
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


def _whole_beam(search: Search) -> Search:
    """The same search for every number of several results, which are cut off afterwards."""
    if search.options.sampling is not None or search.n_best == 1:
        return search
    return search._replace(n_best=search.beam_size)
