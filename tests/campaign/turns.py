"""The turns of the campaign, and how much of the time each gets."""

import itertools
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from campaign import cases
from campaign.damage import Damage
from campaign.hostile import Hostile
from campaign.kills import Kills
from campaign.locks import Locks
from campaign.readers import Readers


class Turn(NamedTuple):
    """A function of a generator and a number that makes cases; it returns what went wrong."""

    name: str
    play: Callable[[np.random.Generator, int], str | None]
    share: float  # of the time


# Of the time that kills have: every call in turn, random moments, and what is rarer.
OF_KILLS = {
    "at_the_next_call": 5.0,
    "at_any_time": 4.0,
    "twice": 2.0,
    "by_sigterm": 2.0,
    "beside_another": 2.0,
    "of_a_fresh_process": 1.0,
}


def make_turns(folder: Path, only: str = "") -> tuple[list[Turn], Callable[[], dict[str, int]]]:
    """The turns on this backend, and a function that counts kills, files and inputs so far.

    Args:
        folder: Where they write.
        only: The beginning of the names of those that are wanted.
    """
    on_jax = keras.backend.backend() == "jax"
    turns: list[Turn] = []
    makers: dict[str, list] = {"kills": []}
    for name in ("fit", "train", "init_from"):
        if not f"kills.{name}.".startswith(only[: len(name) + 7]):
            continue
        kills = Kills(folder / name, name)
        makers["kills"].append(kills)
        turns += [
            Turn(f"kills.{name}.{turn}", getattr(kills, turn), share)
            for turn, share in OF_KILLS.items()
        ]
    if not on_jax:  # what reads files is the same on every backend
        kinds = {
            Damage: {"files": 12.0, "inputs": 2.0, "source": 4.0},
            Hostile: {"runs": 6.0},
            Readers: {"of_recipes": 3.0},
            Locks: {"that_fail": 1.0},
        }
        for kind, shares in kinds.items():
            name = kind.__name__.lower()
            if not f"{name}.".startswith(only[: len(name) + 1]):
                continue
            made = kind(folder / name)
            makers[name] = [made]
            turns += [
                Turn(f"{name}.{turn}", getattr(made, turn), share) for turn, share in shares.items()
            ]
    turns = [turn for turn in turns if turn.name.startswith(only)]
    return turns, lambda: {name: sum(each.count for each in made) for name, made in makers.items()}


def play(
    folder: Path, minutes: float, seed: int, only: str = "", number: int | None = None
) -> tuple[dict[str, int], list[str]]:
    """Plays turns for some minutes, each at least once.

    Returns the number of cases of each kind, and what went wrong.
    """
    _import_all(folder)
    turns, counts = make_turns(folder, only)
    if keras.backend.backend() == "jax":
        import jax

        # From now on the cache of compilations is only read: a kill leaves no half of one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    cases.refuse_started_backends()
    if not turns:
        raise SystemExit(f"--only {only}: there is no such turn on {keras.backend.backend()}")
    played, failures = dict.fromkeys(turns, 0), []
    spent, end = dict.fromkeys(turns, 0.0), time.monotonic() + 60 * minutes
    for _ in itertools.count():
        start = time.monotonic()
        turn = min(turns, key=lambda each: (played[each] > 0, spent[each] / each.share))
        if start >= end and played[turn]:
            break
        place = played[turn] if number is None else number
        rng = np.random.default_rng([seed, zlib.crc32(turn.name.encode()), place])
        if found := turn.play(rng, place):
            failures.append(f"--only {turn.name} --number {place} --seed {seed}: {found}")
            print(failures[-1], file=sys.stderr, flush=True)
        played[turn] += 1
        spent[turn] += time.monotonic() - start
    by_turn = {turn.name: [played[turn], round(spent[turn], 1)] for turn in turns}
    return {**counts(), "turns and seconds": by_turn}, failures


def _import_all(folder):
    """Forks inherit what is imported. Nothing is computed here: a fork has none of its threads."""
    import sacrebleu  # noqa: F401
    import sentencepiece  # noqa: F401
    import tensorflow  # noqa: F401  Keras' set_random_seed does on every backend

    from keras_transformer import cli, load_translator  # noqa: F401
    from keras_transformer.callbacks import TensorBoard  # noqa: F401
    from keras_transformer.runs import training  # noqa: F401

    if keras.backend.backend() == "jax":
        import jax

        warnings.filterwarnings("ignore", "os.fork")  # of threads that run nothing yet
        cases.ALLOWED.append(str(folder / "compiled"))
        jax.config.update("jax_compilation_cache_dir", cases.ALLOWED[-1])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
