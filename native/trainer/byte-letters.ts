/**
 * The printable letter that stands for each byte, in the order of CLIP's own vocabulary (printable bytes first).
 * Same table as `bytes_to_unicode` in openai/CLIP at commit a1d071733d7111c9c014f024669f959182114e33, clip/simple_tokenizer.py.
 */
export function byteLetters(): string[] {
  const printable = [range(0x21, 0x7e), range(0xa1, 0xac), range(0xae, 0xff)].flat();
  const others = range(0, 0xff).filter((byte) => !printable.includes(byte));
  return [...printable, ...others.map((_, index) => 0x100 + index)].map((code) => String.fromCodePoint(code));
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
