"""The other side of the comparison: diffusers, transformers and PEFT on the same model. Run by main.py.

    reference.py <place> inputs <model> <file> <side in pixels>           draws what both sides are given
    reference.py <place> forward <model> <precision> <inputs> <output>    text encoder, VAE and UNet on it
    reference.py <place> train <model> <output> <job>                     a short training; job is JSON
    reference.py <place> compare <json>                                   relative norms of the differences of pairs of files
    reference.py <place> compare-lora <ours> <loaded>                     those of forward passes with a LoRA, relative to
                                                                          what it changes

`place` is a device and the number of threads, e.g. cpu:2 or cuda:2. Each prints one JSON object on its last line.
"""

import json
import math
import pathlib
import resource
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "reference"))

from recipe import COMPUTE_TYPES, Job, train


def peak_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def own_memory_mib() -> float:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def load(model: pathlib.Path, device: torch.device) -> dict[str, torch.nn.Module]:
    models = {
        "unet": UNet2DConditionModel.from_pretrained(model, subfolder="unet"),
        "vae": AutoencoderKL.from_pretrained(model, subfolder="vae"),
        "text_encoder": CLIPTextModel.from_pretrained(model, subfolder="text_encoder"),
    }
    for part in models.values():
        part.requires_grad_(False).eval().to(device)
    return models


def draw_inputs(model: pathlib.Path, file: pathlib.Path, side_px: int) -> dict:
    config = {name: json.loads((model / name / "config.json").read_text()) for name in ("text_encoder", "vae")}
    draw = torch.Generator().manual_seed(1)
    side = side_px // 2 ** (len(config["vae"]["block_out_channels"]) - 1)
    inputs = {
        "token_ids": torch.randint(0, config["text_encoder"]["vocab_size"], (1, 77), generator=draw),
        "pixels": torch.rand(1, 3, side_px, side_px, generator=draw) * 2 - 1,
        "latents": torch.randn(1, 4, side, side, generator=draw),
        "sample": torch.randn(1, 4, side, side, generator=draw),
        "timesteps": torch.tensor([500]),
        "text": torch.randn(1, 77, config["text_encoder"]["hidden_size"], generator=draw),
    }
    save_file(inputs, file)
    return {}


@torch.no_grad()
def forward(
    device: torch.device, model: pathlib.Path, precision: str, inputs_file: pathlib.Path, output_file: pathlib.Path
) -> dict:
    before_mib = own_memory_mib()
    start = time.perf_counter()
    models = load(model, device)
    compute_type = COMPUTE_TYPES[precision]
    models["unet"].to(compute_type)
    result = {
        "load_s": time.perf_counter() - start,
        "own_memory_after_load_mib": own_memory_mib() - before_mib,
        "peak_rss_after_load_mib": peak_rss_mib(),
    }
    inputs, outputs, seconds = load_file(inputs_file, str(device)), {}, {}

    def timed(name: str, work) -> None:
        begin = time.perf_counter()
        outputs.update({key: output.cpu() for key, output in work().items()})
        seconds[name] = time.perf_counter() - begin

    def encode() -> dict[str, torch.Tensor]:
        posterior = models["vae"].encode(inputs["pixels"]).latent_dist
        return {"vae.mean": posterior.mean, "vae.std": posterior.std}

    def predict() -> dict[str, torch.Tensor]:
        sample, text = inputs["sample"].to(compute_type), inputs["text"].to(compute_type)
        prediction = models["unet"](sample, inputs["timesteps"], encoder_hidden_states=text).sample
        return {"unet": prediction.float()}

    timed("text_encoder", lambda: {"text_encoder": models["text_encoder"](inputs["token_ids"]).last_hidden_state})
    timed("vae_encode", encode)
    timed("vae_decode", lambda: {"vae.decoded": models["vae"].decode(inputs["latents"]).sample})
    timed("unet", predict)
    save_file({name: output.contiguous() for name, output in outputs.items()}, output_file)
    return {**result, "seconds": seconds, "peak_rss_mib": peak_rss_mib()}


def synthetic_picture(index: int, side_px: int) -> torch.Tensor:
    """Picture `index` of native/cli/job.cc: uint8 (side, side, 3)."""
    k = torch.arange(side_px * side_px * 3)
    return ((k * (index + 3) + (k >> 9) * 5) % 256).to(torch.uint8).view(side_px, side_px, 3)


def synthetic_caption(index: int, vocabulary: int) -> torch.Tensor:
    return ((37 * index + 11 * torch.arange(77)) % vocabulary).unsqueeze(0)


def train_synthetic(device: torch.device, model: pathlib.Path, output: pathlib.Path, job: dict) -> dict:
    image_count, side_px = job.pop("image_count"), job.pop("size_px")
    models = load(model, device)
    start = time.perf_counter()
    images = [synthetic_picture(i, side_px) for i in range(image_count)]
    vocabulary = models["text_encoder"].config.vocab_size
    result = train(models, Job(**job), images, [synthetic_caption(i, vocabulary) for i in range(image_count)])
    seconds = time.perf_counter() - start
    save_file({f"base_model.model.{name}": value for name, value in result["final"].items()}, output / "final.safetensors")
    save_file(result["gradients"], output / "gradients.safetensors")
    return {"losses": result["losses"], "seconds": seconds, "peak_rss_mib": peak_rss_mib()}


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.double(), expected.double()
    norm = expected.norm().item()
    value = (actual - expected).norm().item() / (norm if norm > 0 else 1.0)
    # max() may pass over NaN.
    return value if math.isfinite(value) else math.inf


def compare(pairs: list[dict]) -> dict:
    """The largest difference of each pair of files, of those keys that end with `suffix`."""
    worst = {}
    for pair in pairs:
        with safe_open(pair["ours"], "pt") as ours, safe_open(pair["theirs"], "pt") as theirs:
            keys = sorted(key for key in theirs.keys() if key.endswith(pair["suffix"]))
            if not keys or keys != sorted(key for key in ours.keys() if key.endswith(pair["suffix"])):
                raise SystemExit(f"{pair['name']}: the two sides have other tensors")
            worst[pair["name"]] = max(difference(ours.get_tensor(key), theirs.get_tensor(key)) for key in keys)
    return worst


def compare_lora(ours: pathlib.Path, loaded: pathlib.Path) -> dict:
    """`loaded` is what check_exports.py saved."""
    outputs = load_file(loaded)
    base = outputs["unet:base"]
    effect = load_file(ours)["unet"] - base
    return {name: difference(effect, outputs[f"unet:{name}"] - base) for name in ("peft", "diffusers", "kohya")}


def main(device: torch.device, command: str, *words: str) -> dict:
    if command == "inputs":
        return draw_inputs(pathlib.Path(words[0]), pathlib.Path(words[1]), int(words[2]))
    if command == "forward":
        return forward(device, pathlib.Path(words[0]), words[1], pathlib.Path(words[2]), pathlib.Path(words[3]))
    if command == "train":
        return train_synthetic(device, pathlib.Path(words[0]), pathlib.Path(words[1]), json.loads(words[2]))
    if command == "compare-lora":
        return compare_lora(*map(pathlib.Path, words))
    return compare(json.loads(words[0]))


if __name__ == "__main__":
    name, threads = sys.argv[1].split(":")
    torch.set_num_threads(int(threads))
    torch.backends.cudnn.allow_tf32 = False
    print(json.dumps(main(torch.device(name), *sys.argv[2:])))
