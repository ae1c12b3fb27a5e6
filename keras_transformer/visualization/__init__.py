"""Pictures of what a model does, and the page of `keras-transformer show`.

```python
from keras_transformer import visualization

weights = model.attention_weights(source_ids, target_ids)
figure = visualization.attention(weights["cross"][-1, 0], target_tokens, source_tokens)
figure.savefig("attention.png")  # a matplotlib figure
```

`explain` collects what happens to one sentence: attention, search, probabilities and shapes.
`write` makes a folder of it, with a page that needs no network, and pictures.

matplotlib is imported when a picture is drawn. All pictures use fonts with Korean, the mark of
SentencePiece (▁) and the minus sign, whatever fonts the machine has.
"""

from keras_transformer.visualization.attention import attention, token_probabilities
from keras_transformer.visualization.explanation import Explanation, explain
from keras_transformer.visualization.fonts import drawn_in_our_fonts, korean_font
from keras_transformer.visualization.masks import masks
from keras_transformer.visualization.page import write
from keras_transformer.visualization.positions import positional_encoding

__all__ = [
    "Explanation",
    "attention",
    "drawn_in_our_fonts",
    "explain",
    "korean_font",
    "masks",
    "positional_encoding",
    "token_probabilities",
    "write",
]
