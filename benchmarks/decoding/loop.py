"""What all contestants that translate share: the sentences, the clock, and the count of tokens."""

import json
import time
from pathlib import Path


def load(folder):
    """The `sentences.json` of a workload: sentences as lists of ids, and the special ids."""
    return json.loads((Path(folder) / "sentences.json").read_text())


def answers(sentences, open_with):
    """Each request is some sentences, one at a time or all in one call.

    Args:
        sentences: lists of ids, without the end.
        open_with: a function of a setting's values that returns
            `translate(sentences, beam_size, tokens, compared) -> lists of ids without the end`.
            `tokens` is how many each translation has, the end counted, or None for the model's own
            choice; with `compared` the ids are to be those of the others, else only as many.
    """
    opened = {}

    def answer(request):
        setting = request["setting"]
        if opened.get("setting") != setting:
            opened.clear()  # before the next one takes its memory
            opened.update(translate=open_with(**setting), setting=setting)
        chosen = sentences[: request["count"]]
        calls = [[each] for each in chosen] if request["one_by_one"] else [chosen]
        tokens, seconds, found = request["tokens"], [], []
        for call in calls:
            begin = time.perf_counter()
            ids = opened["translate"](call, request["beam_size"], tokens, request["compared"])
            seconds.append(time.perf_counter() - begin)
            found += ids
        wrong = [len(ids) + 1 for ids in found if tokens and len(ids) + 1 != tokens]
        if wrong or len(found) != len(chosen):
            raise ValueError(f"{len(found)} translations, of {wrong[:3]} tokens and not {tokens}")
        reply = {"seconds": seconds, "tokens": sum(len(ids) + 1 for ids in found)}
        return {**reply, "ids": found} if request["compared"] else reply

    return answer
