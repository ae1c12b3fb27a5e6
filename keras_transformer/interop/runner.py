"""The script that an ONNX or LiteRT translator comes with, and its README."""

from typing import Any

SCRIPT = '''\
"""Translates the lines of stdin, greedily: python translate.py < source.txt"""

import json, pathlib, sys, unicodedata
import numpy as np, sentencepiece
{imports}

HERE = pathlib.Path(__file__).resolve().parent
SIZES = json.loads((HERE / "sizes.json").read_text(encoding="utf-8"))
SOURCE, TARGET = (
    sentencepiece.SentencePieceProcessor(model_file=str(HERE / SIZES[name]))
    for name in ("source_tokenizer", "target_tokenizer")
)
{run}

def translate(texts):
    texts = [unicodedata.normalize("NFC", text) if text.strip() else "" for text in texts]
    sources, longest = [SOURCE.encode(text) for text in texts], SIZES["longest_target"] or 10**9
    limits = [min(len(ids) + SIZES["extra_length"], longest) if ids else 1 for ids in sources]
    source_ids = np.zeros((len(texts), max(map(len, sources)) + 1), "int32")  # 0 is padding
    for row, ids in zip(source_ids, sources):
        row[: len(ids) + 1] = [*ids, SIZES["source_end_id"]]
    memory = run("encoder", source_ids=source_ids)
    sizes = {{"rows": len(texts), "room": max(limits)}}
    cache = {{
        name: np.zeros([sizes.get(size, size) for size in shape], "float32")
        for name, shape in SIZES["cache"].items()
    }}
    end, newest, found = SIZES["end_id"], np.full(len(texts), SIZES["start_id"]), []
    done = np.zeros(len(texts), bool)
    for index in range(max(limits)):
        ids, position = newest[:, None].astype("int32"), np.array(index, "int32")
        results = run("step", target_ids=ids, index=position, **memory, **cache)
        logits = results["logits"][:, 0]
        logits[:, [SIZES["pad_id"], SIZES["start_id"]]] = -np.inf  # are never chosen
        newest = np.where(np.equal(limits, index + 1), end, logits.argmax(axis=-1))
        found.append(newest)
        done |= newest == end
        if done.all():
            break
        cache = {{name: results["new_" + name] for name in cache}}
    rows = [row[: row.index(end)] for row in np.stack(found, axis=1).tolist()]
    return [TARGET.decode(row).strip(" ") for row in rows]

if __name__ == "__main__":
    lines = [line.rstrip("\\n") for line in sys.stdin]
    for first in range(0, len(lines), 32):
        print(*translate(lines[first : first + 32]), sep="\\n", flush=True)
'''

RUNTIMES = {
    "onnx": {
        "name": "ONNX Runtime",
        "package": "onnxruntime",
        "suffix": ".onnx",
        "imports": "import onnxruntime",
        "run": """\
PARTS = {
    name: onnxruntime.InferenceSession(str(HERE / f"{name}.onnx")) for name in ("encoder", "step")
}

def run(part, **arrays):
    names = [output.name for output in PARTS[part].get_outputs()]
    return dict(zip(names, PARTS[part].run(None, arrays)))
""",
    },
    "litert": {
        "name": "LiteRT",
        "package": "ai-edge-litert",
        "suffix": ".tflite",
        "imports": "from ai_edge_litert.interpreter import Interpreter",
        "run": """\
PARTS = {
    name: Interpreter(str(HERE / f"{name}.tflite")).get_signature_runner()
    for name in ("encoder", "step")
}

def run(part, **arrays):
    return PARTS[part](**arrays)
""",
    },
}

README = """\
A translator for {name}, exported by keras_transformer. To translate with it:

    pip install numpy sentencepiece {package}
    python translate.py < source.txt

encoder{suffix}: from source_ids [rows, length] to memory_mask and cross_*, which the step reads.
  A row ends with the end id and is filled up with 0.
step{suffix}: from target_ids [rows, 1], the newest tokens, their position index, the encoder's
  outputs and the cache self_* to logits [rows, 1, vocabulary] and the new cache new_self_*.
sizes.json: the special ids, and the shapes of an empty cache, which has room for the target.

Rows, lengths and room are of any size. Everything is computed in float32. The search below is
greedy, and a translation has at most {extra_length} tokens more than its source{learned}.

translate.py:

{script}"""


def script(format: str) -> str:
    """Returns the text of translate.py."""
    runtime = RUNTIMES[format]
    return SCRIPT.format(imports=runtime["imports"], run=runtime["run"])


def readme(format: str, sizes: dict[str, Any]) -> str:
    """Returns the text of README.txt; `sizes` as in sizes.json."""
    learned = ""
    if sizes["longest_source"]:
        learned = (
            f".\nThe model has learned positions for {sizes['longest_source']} source tokens, the "
            f"end counted, and {sizes['longest_target']} target\ntokens. A longer source fails"
        )
    indented = "".join(f"    {line}".rstrip() + "\n" for line in script(format).splitlines())
    return README.format(
        **RUNTIMES[format],
        extra_length=sizes["extra_length"],
        learned=learned,
        script=indented,
    )
