"""What an object needs to serve as a tokenizer."""

from typing import Any

NEEDED = ("vocabulary_size", "pad_id", "start_id", "end_id")


def check_tokenizer(tokenizer: Any, needed: tuple[str, ...] = NEEDED) -> None:
    """Raises a ValueError that says how to get a tokenizer, if one lacks what is needed.

    Args:
        tokenizer: A `Tokenizer`, or an object with its methods.
        needed: The names that are used.
    """
    missing = [name for name in needed if not hasattr(tokenizer, name)]
    if not missing:
        return
    advice = "Train one with kt.text.train_tokenizer"
    if getattr(tokenizer, "backbone_cls", None):  # of a model of keras_hub
        advice = "Pass kt.interop.keras_hub.HubTokenizer(tokenizer)"
    elif getattr(tokenizer, "proto", None):  # another SentencePiece tokenizer of keras_hub
        advice = "If its pad id is 0, and it has a start and an end, pass kt.text.Tokenizer(proto)"
    raise ValueError(
        f"A {type(tokenizer).__name__} has no {', '.join(missing)}. A tokenizer of this package "
        "has vocabulary_size, encode(texts) to lists of ids, decode(ids) to a string, pad_id "
        f"(0), start_id and end_id. {advice}, or wrap yours in a class with these."
    )
