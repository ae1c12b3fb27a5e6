"""Damage as disks, copies and editors do it."""

import numpy as np


def mutations(data, count, seed=5):
    """Yields copies of bytes with a flipped bit, a cut, a doubled part, or zeros."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        place, length = int(rng.integers(max(1, len(data)))), int(rng.integers(1, 40))
        if number % 8 < 5:
            flipped = bytes([data[place] ^ (1 << rng.integers(8))]) if data else b"\0"
            yield data[:place] + flipped + data[place + 1 :]
        elif number % 8 == 5:
            yield data[:place]
        elif number % 8 == 6:
            yield data[:place] + data[place : place + length] + data[place:]
        else:
            yield data[:place] + bytes(length) + data[place + length :]
