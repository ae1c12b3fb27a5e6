"""Sentences per second of a server that runs, and how long its clients wait.

    keras-transformer serve runs/demo &
    python benchmarks/serve_load.py http://127.0.0.1:8000 --clients 64 < source.txt

Every client sends one sentence after the other on a connection of its own. The first lines warm the
server up for their lengths, because it compiles a search for each new shape. Prints one JSON line.
"""

import argparse
import concurrent.futures
import http.client
import itertools
import json
import statistics
import sys
import threading
import time
import urllib.parse
from collections.abc import Sequence


def load(address: str, lines: Sequence[str], clients: int, seconds: float) -> dict[str, float]:
    """Sends `lines` again and again from so many clients, for a while, and returns the figures."""
    host = urllib.parse.urlsplit(address).netloc
    texts, waits, failed = itertools.cycle(lines), [], []
    lock, end = threading.Lock(), time.perf_counter() + seconds

    def client():
        connection = http.client.HTTPConnection(host, timeout=120)
        while (begin := time.perf_counter()) < end:
            with lock:
                body = json.dumps({"text": next(texts)})
            connection.request("POST", "/translate", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            (waits if response.status == 200 else failed).append(time.perf_counter() - begin)
            if response.status != 200:
                print(answer.decode(), file=sys.stderr)
        connection.close()

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()  # raises what a client raised
    taken = time.perf_counter() - begin
    waits.sort()
    return {
        "clients": clients,
        "sentences_per_second": round(len(waits) / taken, 1),
        "median_ms": round(1000 * statistics.median(waits), 1),
        "p99_ms": round(1000 * waits[int(0.99 * (len(waits) - 1))], 1),
        "failed": len(failed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    load(args.address, lines, args.clients, args.seconds)  # compiles
    print(json.dumps(load(args.address, lines, args.clients, args.seconds)))


if __name__ == "__main__":
    main()
