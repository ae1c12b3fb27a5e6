"""Draws Figure 1 of the paper with links: `python docs/site/figure1.py > docs/figure1.svg`."""

from xml.sax.saxutils import escape

LAYERS = "code/keras_transformer/layers"
DECODING = "code/keras_transformer/decoding"
PINK, BLUE, ORANGE, YELLOW, PURPLE, GREEN = (
    "#ffe2bb #c2e8f7 #ffd9a8 #f3f6c7 #d6d0f0 #cdebd0".split()
)

# Label, chapter, code of the box, colour; x and y of its upper left corner.
ENCODER, DECODER, WIDTH, HEIGHT = 60, 330, 170, 36
BOXES = [
    ("Add & Norm", "08-residual-and-norm", f"{LAYERS}/residual.py", YELLOW, ENCODER, 220),
    ("Feed Forward", "09-feed-forward", f"{LAYERS}/feed_forward.py", BLUE, ENCODER, 264),
    ("Add & Norm", "08-residual-and-norm", f"{LAYERS}/residual.py", YELLOW, ENCODER, 330),
    ("Multi-Head Attention", "07-multi-head", f"{LAYERS}/attention.py", ORANGE, ENCODER, 374),
    (
        "Positional Encoding",
        "04-positions",
        f"{LAYERS}/positional_encoding.py",
        GREEN,
        ENCODER,
        470,
    ),
    ("Input Embedding", "03-embeddings", f"{LAYERS}/positional_embedding.py", PINK, ENCODER, 514),
    ("Tokens", "02-tokens", "code/keras_transformer/text/tokenizer.py", PINK, ENCODER, 558),
    (
        "Probabilities",
        "12-decoding",
        "code/keras_transformer/decoding/search.py",
        GREEN,
        DECODER,
        10,
    ),
    ("Linear, Softmax", "11-training", "code/keras_transformer/losses.py", PURPLE, DECODER, 54),
    ("Add & Norm", "08-residual-and-norm", f"{LAYERS}/residual.py", YELLOW, DECODER, 110),
    ("Feed Forward", "09-feed-forward", f"{LAYERS}/feed_forward.py", BLUE, DECODER, 154),
    ("Add & Norm", "08-residual-and-norm", f"{LAYERS}/residual.py", YELLOW, DECODER, 220),
    (
        "Attention to the encoder",
        "10-encoder-decoder",
        f"{LAYERS}/decoder.py",
        ORANGE,
        DECODER,
        264,
    ),
    ("Add & Norm", "08-residual-and-norm", f"{LAYERS}/residual.py", YELLOW, DECODER, 330),
    ("Masked Attention", "06-masks", "code/keras_transformer/ops/masks.py", ORANGE, DECODER, 374),
    (
        "Positional Encoding",
        "04-positions",
        f"{LAYERS}/positional_encoding.py",
        GREEN,
        DECODER,
        470,
    ),
    ("Output Embedding", "03-embeddings", f"{LAYERS}/positional_embedding.py", PINK, DECODER, 514),
    (
        "Tokens, shifted right",
        "11-training",
        "code/keras_transformer/data/batches.py",
        PINK,
        DECODER,
        558,
    ),
]
STACKS = [("encoder", "N x", ENCODER - 12, 208, 214), ("decoder", "N x", DECODER - 12, 98, 324)]


def line(*points, arrow=True):
    path = " L".join(f"{x},{y}" for x, y in points)
    head = ' marker-end="url(#arrow)"' if arrow else ""
    return f'<path d="M{path}" fill="none" stroke="#556" stroke-width="1.5"{head}/>'


def figure():
    """Returns the whole drawing as SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 610" role="img" '
        'style="max-width:640px;width:100%;background:#fff" font-family="sans-serif">',
        '<title>Figure 1 of "Attention Is All You Need", every box a link</title>',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#556"/></marker></defs>',
    ]
    for name, times, x, y, height in STACKS:
        parts.append(
            f'<a href="{LAYERS}/{name}.py.html"><rect x="{x}" y="{y}" width="{WIDTH + 24}" '
            f'height="{height}" rx="10" fill="#f4f4f6" stroke="#99a"/></a>'
        )
        side = x - 34 if name == "encoder" else x + WIDTH + 32
        parts.append(
            f'<text x="{side}" y="{y + height / 2}" font-size="16" fill="#223">{times}</text>'
        )
    for x in (ENCODER, DECODER):
        middle = x + WIDTH / 2
        for low, high in ((558, 550), (514, 506), (470, 412)):
            parts.append(line((middle, low), (middle, high)))
        parts.append(line((middle, 374), (middle, 368)))
        parts.append(line((middle, 330), (middle, 302)))
        parts.append(line((middle, 264), (middle, 258)))
        # The residual connections around the sub-layers.
        parts.append(line((middle, 440), (x - 7, 440), (x - 7, 348), (x, 348)))
        parts.append(line((middle, 316), (x - 7, 316), (x - 7, 238), (x, 238)))
    middle = DECODER + WIDTH / 2
    for low, high in ((220, 192), (154, 148), (110, 92), (54, 48)):
        parts.append(line((middle, low), (middle, high)))
    parts.append(line((middle, 206), (DECODER - 7, 206), (DECODER - 7, 128), (DECODER, 128)))
    memory = ENCODER + WIDTH / 2
    parts.append(line((memory, 220), (memory, 190), (281, 190), (281, 282), (DECODER, 282)))
    parts.append('<text x="170" y="182" font-size="11" fill="#556">to every decoder layer</text>')
    for label, chapter, code, colour, x, y in BOXES:
        parts.append(
            f'<a href="paper/{chapter}.html"><rect x="{x}" y="{y}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="6" fill="{colour}" stroke="#445"/>'
            f'<text x="{x + (WIDTH - 24) / 2}" y="{y + 23}" font-size="12.5" text-anchor="middle" '
            f'fill="#112">{escape(label)}</text></a>'
        )
        parts.append(
            f'<a href="{code}.html"><text x="{x + WIDTH - 14}" y="{y + 23}" font-size="11" '
            f'text-anchor="middle" fill="#2457a7">{escape("</>")}</text></a>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    print(figure(), end="")
