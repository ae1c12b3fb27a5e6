"""Hugging Face's `generate`, with its cache, in batches of sentences of similar length."""

import torch
from loop import answers, load


def prepare(config):
    workload, cores = load(config["folder"]), config["cores"]
    # Loads the whole module, because `from_pretrained` would replace positions and epsilons.
    model = torch.load(f"{config['folder']}/huggingface.pt", weights_only=False)
    special = workload["special_ids"]
    pad, end = special["pad_id"], special["end_id"]

    @torch.inference_mode()
    def batch(sentences, beam_size, tokens, top_p):
        ids = [torch.tensor([*each, end]) for each in sentences]
        ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
        if tokens:
            limits = {"min_new_tokens": tokens - 1, "max_new_tokens": tokens}
            limits["forced_eos_token_id"] = end
        else:
            limits = {"max_new_tokens": max(map(len, sentences)) + workload["extra_length"]}
        beams = {"early_stopping": True, "length_penalty": 1.0} if beam_size > 1 else {}
        found = model.generate(
            input_ids=ids,
            attention_mask=(ids != pad).long(),
            num_beams=beam_size,
            **({"do_sample": True, "top_k": 0, "top_p": top_p} if top_p else {"do_sample": False}),
            suppress_tokens=[pad, special["start_id"]],
            **limits,
            **beams,
        )
        rows = found[:, 1:].tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]

    def open_with(threads, batch_size=1):
        torch.set_num_threads(threads)

        def translate(sentences, beam_size, tokens, compared, top_p):
            order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))
            found = [None] * len(sentences)
            for first in range(0, len(order), batch_size):
                chosen = order[first : first + batch_size]
                ids = batch([sentences[i] for i in chosen], beam_size, tokens, top_p)
                for i, row in zip(chosen, ids, strict=True):
                    found[i] = row
            return found

        return translate

    facts = {
        "compiles": False,
        "latency": {"threads": [1, cores]},
        "throughput": {"threads": [cores], "batch_size": [64, 16, 32, 128]},
    }
    return answers(workload["sentences"], open_with), facts
