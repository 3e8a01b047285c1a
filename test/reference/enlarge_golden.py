"""Makes test/reference/enlarge_golden.json: small pictures enlarged by Pillow's Lanczos, cut to their centre square.

Made with Pillow 13.0.0:

    python test/reference/enlarge_golden.py

Running it again changes nothing.
"""

import base64
import json
import random
from pathlib import Path

from PIL import Image

# Width, height and the side of the square: both orientations, an odd rest to cut, a single pixel, no change at all.
CASES = [(12, 9, 16), (9, 13, 20), (7, 7, 24), (1, 1, 8), (40, 3, 8), (10, 14, 10)]


def main() -> None:
    draw = random.Random(1)
    cases = []
    for width, height, side in CASES:
        pixels = bytes(draw.choice((0, 255, draw.randrange(256))) for _ in range(width * height * 3))
        scale = side / min(width, height)
        size = (round(width * scale), round(height * scale))
        large = Image.frombytes("RGB", (width, height), pixels).resize(size, Image.Resampling.LANCZOS)
        left, top = (size[0] - side + 1) // 2, (size[1] - side + 1) // 2
        square = large.crop((left, top, left + side, top + side))
        cases.append(
            {
                "width": width,
                "height": height,
                "side": side,
                "pixels": base64.b64encode(pixels).decode(),
                "expected": base64.b64encode(square.tobytes()).decode(),
            }
        )
    (Path(__file__).parent / "enlarge_golden.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
