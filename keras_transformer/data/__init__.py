"""Parallel text: files -> pairs -> ids -> token-budget batches with a bounded set of shapes.

`read_parallel` and `read_tsv` read pairs, and `open_corpus` opens text that is larger than the
memory. `report` describes pairs, `encode_pairs` makes ids of them once, and a `BatchPlan` makes
batches of the ids: `plan(seed, update) -> micro-batches`. `token_batches` does the last two in one
line. `WindowPlan`, `ImagePlan`, `MaskedPlan` and `LabelledPlan` are plans for a long text, for
images and for single texts.
"""

from keras_transformer.data.batches import BatchPlan
from keras_transformer.data.corpus import Corpus, open_corpus
from keras_transformer.data.digest import text_sha256
from keras_transformer.data.encoded_pairs import EncodedPairs
from keras_transformer.data.encoding import encode_pairs, kept_pairs, read_encoded
from keras_transformer.data.feed import FeedMeter
from keras_transformer.data.images import ImagePlan, scaled
from keras_transformer.data.labelled_texts import EncodedTexts, LabelledPlan, encode_texts
from keras_transformer.data.lines import decode_line, read_lines
from keras_transformer.data.masked import MaskedPlan, mask_tokens
from keras_transformer.data.parallel_text import read_parallel, read_tsv, write_parallel
from keras_transformer.data.report import Report, report
from keras_transformer.data.subword_sampling import SubwordSampling
from keras_transformer.data.token_batches import token_batches
from keras_transformer.data.windows import WindowPlan

__all__ = [
    "BatchPlan",
    "Corpus",
    "EncodedPairs",
    "EncodedTexts",
    "FeedMeter",
    "ImagePlan",
    "LabelledPlan",
    "MaskedPlan",
    "Report",
    "SubwordSampling",
    "WindowPlan",
    "decode_line",
    "encode_pairs",
    "encode_texts",
    "kept_pairs",
    "mask_tokens",
    "open_corpus",
    "read_encoded",
    "read_lines",
    "read_parallel",
    "read_tsv",
    "report",
    "scaled",
    "text_sha256",
    "token_batches",
    "write_parallel",
]
