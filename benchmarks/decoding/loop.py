"""Shared by all contestants that translate: the sentences, the clock, and the count of tokens."""

import json
import time
from pathlib import Path

REQUEST = ("beam_size", "tokens", "compared", "top_p")  # what each call is asked for


def load(folder):
    """Reads the `sentences.json` of a workload: sentences as lists of ids, and the special ids."""
    return json.loads((Path(folder) / "sentences.json").read_text())


def answers(sentences, open_with):
    """Returns a function that answers requests: it translates sentences one by one or in one call.

    It waits for the seconds of `pause`, if there are any, before each call.

    Args:
        sentences: Lists of ids, without the end.
        open_with: A function of the setting's values that returns
            `translate(sentences, beam_size, tokens, compared, top_p) -> lists of ids without the
            end`. `tokens` is the length of every translation, including the end. With None the
            model chooses it. With `compared` the ids must be those of the other contestants,
            otherwise only their number must be right. `top_p` is None for the likeliest ids.
    """
    opened = {}

    def answer(request):
        setting = request["setting"]
        if opened.get("setting") != setting:
            opened.clear()  # frees its memory before the next translator is made
            opened.update(translate=open_with(**setting), setting=setting)
        chosen = sentences[: request["count"]]
        calls = [[each] for each in chosen] if request["one_by_one"] else [chosen]
        tokens, seconds, found = request["tokens"], [], []
        for call in calls:
            time.sleep(request.get("pause", 0))
            begin = time.perf_counter()
            ids = opened["translate"](call, *(request[name] for name in REQUEST))
            seconds.append(time.perf_counter() - begin)
            found += ids
        wrong = [len(ids) + 1 for ids in found if tokens and len(ids) + 1 != tokens]
        if wrong or len(found) != len(chosen):
            raise ValueError(
                f"Got {len(found)} translations of {len(chosen)} sentences. "
                f"Some are of {wrong[:3]} tokens and not {tokens}."
            )
        reply = {"seconds": seconds, "tokens": sum(len(ids) + 1 for ids in found)}
        return {**reply, "ids": found} if request["compared"] else reply

    return answer
