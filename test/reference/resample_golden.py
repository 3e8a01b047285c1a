"""Makes test/reference/resample_golden.json: pictures resized by Pillow's Lanczos.

Made with Pillow 13.0.0:

    python test/reference/resample_golden.py

Running it again changes nothing.
"""

import base64
import json
import random
from pathlib import Path

from PIL import Image

# Width, height and the side of the square: both orientations, an odd rest to cut, a single pixel, no change, smaller.
CROPPED = [(12, 9, 16), (9, 13, 20), (7, 7, 24), (1, 1, 8), (40, 3, 8), (10, 14, 10), (70, 53, 9), (60, 101, 7)]

# The same, for whole pictures that are stretched: larger, smaller, one way and the other. Sizes for which Pillow, too,
# goes across first: where the height shrinks much more than the width, it goes down first, and rounds other values.
STRETCHED = [(12, 9, 16), (30, 9, 12), (40, 3, 8), (50, 33, 9), (1, 5, 4)]

# Pattern, width, height, mode, side: what the trainer does with files, reduced 1.02, 1.25, 3.5, 4.0, 6.7 and 12 times, and enlarged.
DECODED = [
    (pattern, width, height, mode, side)
    for pattern in ("noise", "zones", "shapes")
    for width, height, mode, side in [
        (50, 49, "crop", 48),
        (80, 60, "crop", 48),
        (167, 250, "crop", 48),
        (451, 320, "crop", 48),
        (190, 230, "crop", 48),
        (576, 600, "crop", 48),
        (20, 30, "crop", 48),
        (250, 100, "stretch", 48),
        (30, 350, "stretch", 48),
    ]
]


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """Short side resized, middle cut out; the odd pixel goes to the end where libvips crops."""
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    left, top = (size[0] - side + 1) // 2, (size[1] - side + 1) // 2
    return image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + side, top + side))


def stretched(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.LANCZOS)


def drawn(pattern: str, width: int, height: int) -> Image.Image:
    """The pictures of test/unit/native/trainer/support/patterns.ts: formulas in integers."""
    if pattern == "noise":
        pixels, state = bytearray(), 1
        for _ in range(width * height * 3):
            state = state * 48271 % 2147483647
            pixels.append(state >> 8 & 255)
        return Image.frombytes("RGB", (width, height), bytes(pixels))
    if pattern == "zones":
        value = lambda x, y, c: (x * x + y * y * (1 + c)) // 64 % 256  # noqa: E731
    else:
        value = lambda x, y, c: (x // 37 + y // 23 + c) % 2 * 200 + (x * 3 + y) // 40 % 50  # noqa: E731
    return Image.frombytes(
        "RGB", (width, height), bytes(value(x, y, c) for y in range(height) for x in range(width) for c in range(3))
    )


def text(pixels: bytes) -> str:
    return base64.b64encode(pixels).decode()


def main() -> None:
    draw = random.Random(1)
    cases = {"cropped": [], "stretched": [], "decoded": []}
    for kind, sizes, resize in (("cropped", CROPPED, centre_square), ("stretched", STRETCHED, stretched)):
        for width, height, side in sizes:
            pixels = bytes(draw.choice((0, 255, draw.randrange(256))) for _ in range(width * height * 3))
            square = resize(Image.frombytes("RGB", (width, height), pixels), side)
            cases[kind].append(
                {"width": width, "height": height, "side": side, "pixels": text(pixels), "expected": text(square.tobytes())}
            )
    for pattern, width, height, mode, side in DECODED:
        square = (centre_square if mode == "crop" else stretched)(drawn(pattern, width, height), side)
        cases["decoded"].append(
            {"pattern": pattern, "width": width, "height": height, "mode": mode, "side": side, "expected": text(square.tobytes())}
        )
    (Path(__file__).parent / "resample_golden.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
