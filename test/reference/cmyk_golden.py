"""Makes test/reference/cmyk_golden.json: small CMYK JPEGs, which sharp can't write from ink values.

Made with Pillow 13.0.0:

    python test/reference/cmyk_golden.py

Running it again changes nothing.
"""

import base64
import io
import json
from pathlib import Path

from PIL import Image

# Ink in percent of cyan, magenta, yellow, black: left half, right half.
PICTURES = {
    "paper and black": ((0, 0, 0, 0), (0, 0, 0, 100)),
    "cyan and red": ((100, 0, 0, 0), (0, 100, 100, 0)),
    "half grey and yellow": ((0, 0, 0, 50), (0, 0, 100, 0)),
}


def main() -> None:
    files = {}
    for name, halves in PICTURES.items():
        image = Image.new("CMYK", (64, 64))
        for index, inks in enumerate(halves):
            image.paste(tuple(round(ink * 2.55) for ink in inks), (32 * index, 0, 32 * index + 32, 64))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95, subsampling=0)
        files[name] = base64.b64encode(file.getvalue()).decode()
    (Path(__file__).parent / "cmyk_golden.json").write_text(json.dumps(files, indent=1) + "\n")


if __name__ == "__main__":
    main()
