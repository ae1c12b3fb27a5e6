"""Parallel text: files -> pairs -> ids -> token-budget batches with a bounded set of shapes.

```
read_parallel / read_tsv    files -> [(source, target), ...]; read_lines reads a single file
write_parallel              pairs -> two files that read_parallel reads back
text_sha256                 identifies texts, in any place
report                      figures of pairs: duplicates, overlap with validation, lengths
encode_pairs                pairs -> flat arrays of ids, once, cached in a file
kept_pairs                  the pairs that encode_pairs keeps
SubwordSampling             other pieces of the same text in each epoch (BPE-dropout)
BatchPlan                   plan(seed, update) -> micro-batches; .dataset() is for `fit`
token_batches               encode_pairs, BatchPlan and .dataset() in one line
FeedMeter                   what feeding a training costs: padding, and waiting for batches
WindowPlan                  windows of one long text, for language models
ImagePlan                   labelled images, for image classifiers
encode_texts                single texts -> flat arrays of ids
MaskedPlan                  texts with hidden tokens, for masked language models
LabelledPlan                texts and their classes
```
"""

from keras_transformer.data.batches import BatchPlan
from keras_transformer.data.digest import text_sha256
from keras_transformer.data.encoding import EncodedPairs, encode_pairs, kept_pairs, read_encoded
from keras_transformer.data.feed import FeedMeter
from keras_transformer.data.images import ImagePlan
from keras_transformer.data.labelled_texts import EncodedTexts, LabelledPlan, encode_texts
from keras_transformer.data.lines import read_lines
from keras_transformer.data.masked import MaskedPlan, mask_tokens
from keras_transformer.data.parallel_text import read_parallel, read_tsv, write_parallel
from keras_transformer.data.report import Report, report
from keras_transformer.data.subword_sampling import SubwordSampling
from keras_transformer.data.token_batches import token_batches
from keras_transformer.data.windows import WindowPlan

__all__ = [
    "BatchPlan",
    "EncodedPairs",
    "EncodedTexts",
    "FeedMeter",
    "ImagePlan",
    "LabelledPlan",
    "MaskedPlan",
    "Report",
    "SubwordSampling",
    "WindowPlan",
    "encode_pairs",
    "encode_texts",
    "kept_pairs",
    "mask_tokens",
    "read_encoded",
    "read_lines",
    "read_parallel",
    "read_tsv",
    "report",
    "text_sha256",
    "token_batches",
    "write_parallel",
]
