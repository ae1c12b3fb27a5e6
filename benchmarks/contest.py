"""Runs contestants in processes of their own and asks them in turn. Benchmarks are built on it.

A contestant is a Python file with `prepare(config) -> answer, facts` and
`answer(request) -> reply`. Configs, facts, requests and replies are JSON dictionaries. Every
contestant has a process and, if needed, a Python of its own, so thread pools, allocators and
incompatible requirements stay apart. The processes live as long as the contest and wait while
another one works. Because they take turns, all meet the machine in the same state.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import traceback
from pathlib import Path


class Contestant:
    """A process that holds one contestant.

    Args:
        name: Its name in reports.
        file: The Python file with its `prepare`.
        config: The argument of `prepare`.
        log: The file that gets everything it prints.
        python: The interpreter. Unless given, it is the current one.
        environment: Further environment variables.
    """

    def __init__(self, name, file, config, log, python=None, environment=None):
        self.name, self.log = name, Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [python or sys.executable, __file__, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})},
        )
        self.facts = self.ask(config)

    def ask(self, request):
        """Returns the reply to a request.

        Raises:
            RuntimeError: If the contestant fails. The message has one line of its error, and the
                log has the rest.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            raise RuntimeError(f"{self.name} died; see {self.log}")
        reply = json.loads(line)
        if "error" in reply:
            self.close()
            raise RuntimeError(f"{self.name}: {reply['error']}; see {self.log}")
        return reply

    def close(self):
        self._process.kill()
        self._process.wait()


def cpu():
    """Returns the processor's name, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        name = next(
            (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), name
        )
        flags = next((x.split() for x in lines if x.startswith("flags")), [])
        name += "".join(
            f" {flag}" for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags
        )
    return {"cpu": name, "cores": len(os.sched_getaffinity(0))}


def versions(*packages):
    """Returns the installed versions, with None for missing packages."""
    from importlib import metadata

    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _serve(file):
    # Sends everything that libraries print to stderr, so that it does not mix with the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec = importlib.util.spec_from_file_location("contestant", file)
    module = importlib.util.module_from_spec(spec)
    answer = None
    for line in sys.stdin:
        try:
            if answer is None:
                sys.path.insert(0, os.path.dirname(file))
                spec.loader.exec_module(module)
                answer, reply = module.prepare(json.loads(line))
            else:
                reply = answer(json.loads(line))
        except Exception as error:  # from any library; the report gets it as an entry
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {str(error).splitlines()[:1]}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
