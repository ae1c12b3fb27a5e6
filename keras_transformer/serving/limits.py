"""How much a server takes at once."""

import dataclasses

from keras_transformer import arguments


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts. A request beyond a limit is refused at once, with the limit's value.

    Args:
        batch_size: The greatest number of sentences in one batch of the model.
        queue: The greatest number of sentences that wait. Beyond it requests get status 503.
        seconds: The longest time that a request may take. Beyond it it gets status 504.
        body_bytes: The greatest size of a request. Beyond it it gets status 413, as with the next
            two.
        sentences: The greatest number of sentences of one request.
        tokens: The greatest number of tokens of a sentence, without the end.
        explained_tokens: The same for `/explain`, whose answer grows with the square of the length.
        phrase_tokens: The greatest number of tokens of the phrases that one translation must hold,
            where each token widens the beam by one, and of a word that is not written.
        suppressed: The greatest number of words that are not written.
        ngram: The greatest `no_repeat_ngram`.
        beam_size: The greatest beam, and the greatest number of samples, that a request may ask
            for.
        searches: How many different searches requests may ask for. Each is compiled, and kept
            while the server runs. Searches are the same if they differ in `min_length`,
            `max_length`, `repetition_penalty`, `diversity`, `suppress`, `temperature`, `top_p` or
            `seed` only.

    Raises:
        ValueError: If a limit is not positive, or the queue cannot hold a single request.
    """

    batch_size: int = 64
    queue: int = 1024
    seconds: float = 60.0
    body_bytes: int = 1_048_576
    sentences: int = 256
    tokens: int = 511
    explained_tokens: int = 100
    phrase_tokens: int = 32
    suppressed: int = 100
    ngram: int = 10
    beam_size: int = 16
    searches: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "seconds":
                arguments.whole_number(field.name, value)
            elif not arguments.real_number(field.name, value) > 0:
                raise ValueError(f"seconds is a number above 0, got {value!r}.")
        if self.queue < self.sentences:
            raise ValueError(
                f"A queue of {self.queue} sentences cannot hold a request of {self.sentences}. "
                "Raise queue, or lower sentences."
            )
