"""CTranslate2 with the weights that the export writes, float32 or int8.

CTranslate2 cuts a hypothesis at its limit and adds no end token. A fixed number of tokens is
therefore the same number of steps as for the other contestants, and the last token takes the place
of the end. The comparison uses the best hypothesis without that token.
"""

import ctranslate2
from loop import answers, load


def prepare(config):
    workload, cores = load(config["folder"]), config["cores"]
    # Prepared once, so that it is not timed: the pieces, and one limit for all sentences.
    pieces = {id: str(id) for ids in workload["sentences"] for id in ids}
    longest = max(map(len, workload["sentences"])) + workload["extra_length"]

    def open_with(workers="1x1", batch=None):
        inter, intra = map(int, workers.split("x"))
        size, kind = batch.split() if batch else (0, "examples")
        translator = ctranslate2.Translator(
            f"{config['folder']}/ctranslate2_{config['weights']}",
            inter_threads=inter,
            intra_threads=intra,
            compute_type=config["weights"],
        )

        def translate(sentences, beam_size, tokens, compared, top_p):
            limits = {"min_decoding_length": 0, "max_decoding_length": longest}
            if tokens:
                limits = dict.fromkeys(limits, tokens - 1 if compared else tokens)
            found = translator.translate_batch(
                [[pieces[id] for id in ids] for ids in sentences],
                max_batch_size=int(size),
                batch_type=kind,
                beam_size=beam_size,
                length_penalty=1,
                **limits,
                **({"sampling_topk": 0, "sampling_topp": top_p} if top_p else {}),
            )
            return [list(map(int, each.hypotheses[0]))[: tokens and tokens - 1] for each in found]

        return translate

    facts = {
        "compiles": False,
        "latency": {"workers": ["1x1", f"1x{cores}"]},
        "throughput": {
            "workers": [f"{cores}x1", f"1x{cores}", "1x1"],
            "batch": ["32 examples", "16 examples", "64 examples", "128 examples", "1024 tokens"],
        },
    }
    return answers(workload["sentences"], open_with), facts
