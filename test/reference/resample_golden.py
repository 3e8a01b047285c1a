"""Makes test/reference/resample_golden.json: aspect buckets, and pictures resized by Pillow's Lanczos.

Made with Pillow 13.0.0:

    python test/reference/resample_golden.py

Running it again changes nothing.
"""

import base64
import json
import math
import random
from pathlib import Path

from PIL import Image

# Width, height and the side of the square: both orientations, an odd rest to cut, a single pixel, no change, smaller.
CROPPED = [(12, 9, 16), (9, 13, 20), (7, 7, 24), (1, 1, 8), (40, 3, 8), (10, 14, 10), (70, 53, 9), (60, 101, 7)]

# The same, for whole pictures that are stretched: larger, smaller, one way and the other. Sizes for which Pillow, too,
# goes across first: where the height shrinks much more than the width, it goes down first, and rounds other values.
STRETCHED = [(12, 9, 16), (30, 9, 12), (40, 3, 8), (50, 33, 9), (1, 5, 4)]

# Width, height, and both of the size that is covered: cut across, cut down, an odd rest, enlarged, reduced, no cut.
COVERED = [(15, 8, 10, 6), (9, 17, 7, 11), (5, 4, 12, 8), (60, 41, 8, 12), (33, 20, 6, 4), (12, 8, 12, 8), (3, 40, 8, 6)]

# The same for what the trainer does with files: the resolution of which the bucket is 64 x 128 or 128 x 64.
BUCKET_RESOLUTION = 96
BUCKETED = [("noise", 190, 120), ("zones", 150, 280), ("shapes", 620, 330), ("zones", 60, 91)]

# What buckets are found for: common sizes of pictures, both ways, extremes, and places near where the bucket changes.
RESOLUTIONS = [64, 96, 200, 512, 640, 768, 1024]
PICTURES = [
    (1, 1), (512, 512), (513, 512), (1200, 1000), (640, 480), (1920, 1080), (3000, 2000), (1024, 576), (2100, 900),
    (1000, 500), (1000, 301), (800, 200), (5000, 300), (1129, 1000), (1140, 1000), (455, 512), (579, 448), (1463, 1000),
    (1464, 1000), (1465, 1000),
]

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


def covering(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resized until the size is just covered, middle cut out; the odd pixel goes to the end where libvips crops."""
    scale = max(width / image.width, height / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    left, top = (size[0] - width + 1) // 2, (size[1] - height + 1) // 2
    return image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))


def bucket_sizes(resolution: int) -> list[tuple[int, int]]:
    """The square, and of all sizes of at most the area the greatest of each width and of each height."""
    low, high = max(64, resolution // 2 // 64 * 64), 2 * resolution // 64 * 64
    sides = range(low, high + 1, 64)
    fitting = {(w, h) for w in sides for h in sides if w * h <= resolution * resolution}
    widest = {(w, max(b for a, b in fitting if a == w)) for w, _ in fitting}
    highest = {(max(a for a, b in fitting if b == h), h) for _, h in fitting}
    return sorted(widest | highest | {(resolution // 64 * 64,) * 2})


def bucket_of(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Nearest by the logarithm of the ratio of width and height."""
    return min(bucket_sizes(resolution), key=lambda size: abs(math.log(size[0] / size[1]) - math.log(width / height)))


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
    cases["covered"] = []
    for width, height, *target in COVERED:
        pixels = bytes(draw.choice((0, 255, draw.randrange(256))) for _ in range(width * height * 3))
        cut = covering(Image.frombytes("RGB", (width, height), pixels), *target)
        cases["covered"].append(
            {"width": width, "height": height, "target": target, "pixels": text(pixels), "expected": text(cut.tobytes())}
        )
    cases["bucketed"] = []
    for pattern, width, height in BUCKETED:
        target = bucket_of(width, height, BUCKET_RESOLUTION)
        cut = covering(drawn(pattern, width, height), *target)
        cases["bucketed"].append(
            {"pattern": pattern, "width": width, "height": height, "resolution": BUCKET_RESOLUTION, "target": target,
             "expected": text(cut.tobytes())}
        )
    cases["buckets"] = [
        {
            "resolution": resolution,
            "sizes": " ".join(f"{width}x{height}" for width, height in bucket_sizes(resolution)),
            "bucketOf": {
                f"{width}x{height}": "%dx%d" % bucket_of(width, height, resolution)
                for size in PICTURES
                for width, height in (size, size[::-1])
            },
        }
        for resolution in RESOLUTIONS
    ]
    (Path(__file__).parent / "resample_golden.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
