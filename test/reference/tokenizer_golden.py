"""Makes two files beside it: tokenizer_golden.json, what transformers' CLIPTokenizer gives for captions of every awkward
kind, and tokenizer_export.json, the single file that newer exports hold instead of a vocabulary with merges (four tokens).

Vocabulary: the one random base models get (test/reference/tokenizer/, written by `writeRandomTokenizer`; a unit test checks
that both are equal). Made with transformers 5.23.0 and tokenizers 0.23.3:

    python test/reference/tokenizer_golden.py

Running it again changes nothing.
"""

import json
from pathlib import Path

from transformers import CLIPTokenizer

FOLDER = Path(__file__).parent
LENGTH = 77

CAPTIONS = [
    "",
    " ",
    "a painting of a lighthouse on a hill",
    "A Painting Of A LIGHTHOUSE",
    "  many   spaces \t tabs\nand\r\nlines  ",
    "non\u00a0breaking\u2003wide\u3000ideographic spaces",
    "it's the artist's house, they're we've I'm she'll he'd don't",
    "IT'S THE ARTIST'S",
    "rock'n'roll 'quoted' ''double''",
    "1234 rooms, 3.14 and 19th-century 2nd ½ ² ٣ Ⅷ",
    "semi-abstract; (ink:1.3), [blue|red], {oil}!!! ... ???",
    "snake_case-and/slashes\\back #tag @artist $5 50% a&b a+b=c",
    "naïve café façade Ærø straße ÅNGSTRÖM",
    "cafe\u0301 combining e\u0301 A\u030a",
    "İstanbul ıspanak ŞIŞLI",
    "ΣΊΣΥΦΟΣ ΟΔΥΣΣΕΥΣ Σ ΑΣ'",
    "Зимний вечер в Москве",
    "수채화 풍경, 제주도 바다",
    "\u1112\u1161\u11ab\u1100\u1173\u11af decomposed hangul",
    "浮世絵 風の波 ｆｕｌｌｗｉｄｔｈ ﬁligree",
    "مرحبا لوحة زيتية עברית",
    "नमस्ते चित्रकला ภาพวาด",
    "emoji 🎨🖌️ family 👩‍👩‍👧‍👦 flag 🇰🇷 skin 👍🏽",
    "zero\u200bwidth joiner\u200d bom\ufeff soft\u00adhyphen",
    "control\u0000null \u0007bell \u001funit \u0085nel \u2028line",
    "<|startoftext|>nested<|endoftext|> after",
    "text <|ENDOFTEXT|> upper and <|endoftext|>",
    "<b>html</b> &amp; https://example.com/a?b=c&d=e",
    "“curly” ‘quotes’ — dash – en … ellipsis it’s",
    "a" * 400,
    " ".join(["word"] * 100),
    " ".join(["sunset"] * 75),
    " ".join(["sunset"] * 76),
    "𝒮𝒸𝓇𝒾𝓅𝓉 𐐀𐐨 Deseret 𝟙𝟚",
    "ǅungla ŉ ǰ ẞ ﬀ K Å Ω",
]


def main() -> None:
    folder = FOLDER / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    cases = []
    for caption in CAPTIONS:
        ids = tokenizer(caption, padding="max_length", truncation=True, max_length=LENGTH).input_ids
        cases.append({"caption": caption, "ids": ids})
    lines = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in cases)
    (FOLDER / "tokenizer_golden.json").write_text(f"[\n{lines}\n]\n")
    tiny = CLIPTokenizer(vocab={"a": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}, merges=[])
    tiny.backend_tokenizer.save(str(FOLDER / "tokenizer_export.json"))


if __name__ == "__main__":
    main()
