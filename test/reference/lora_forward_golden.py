"""Writes golden/lora_files.json and golden/lora_forward.safetensors: a forward pass of the tiny model with a LoRA that
was loaded from each of the three files that Brushwork writes, by the file's own reader.

    .venv/bin/python test/reference/lora_forward_golden.py

The LoRA's values are whole numbers from a generator, divided, so that the C++ test (lora_files_test.cc) has the same bits.
The files are written here as docs/training.md describes them; that test compares their keys with those of its exports.
"""

import json
import pathlib
import tempfile

import torch
from check_exports import draw_inputs, forward, load_models, relative, with_peft, with_pipeline
from peft import LoraConfig
from random_model import random_model
from recipe import TARGETS
from safetensors.torch import save_file

GOLDEN = pathlib.Path(__file__).parent / "golden"
RANK, ALPHA = 4, 6.0
FILES = {"diffusers": "lora_weights.safetensors", "peft": "peft/adapter_model.safetensors", "kohya": "kohya.safetensors"}


def draw_lora(unet: torch.nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of each module, names sorted by code point."""
    generator = torch.Generator().manual_seed(12)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randint(-1000, 1001, shape, generator=generator) / 4000

    linear = {name: module for name, module in unet.named_modules() if name.endswith(tuple(f".{t}" for t in TARGETS))}
    return {
        name: (drawn(RANK, linear[name].in_features), drawn(linear[name].out_features, RANK)) for name in sorted(linear)
    }


def write_model(directory: pathlib.Path) -> torch.nn.Module:
    models = random_model("tiny", 7)
    for name, model in models.items():
        model.save_pretrained(directory / name)
    return models["unet"]


def file_contents(lora: dict) -> dict[str, dict[str, torch.Tensor]]:
    scale = ALPHA / RANK
    contents = {reader: {} for reader in FILES}
    for name, (a, b) in lora.items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        contents["diffusers"] |= {f"unet.{name}.lora_A.weight": a, f"unet.{name}.lora_B.weight": b * scale}
        model = f"base_model.model.{name}"
        contents["peft"] |= {f"{model}.lora_A.weight": a, f"{model}.lora_B.weight": b}
        alpha = torch.tensor(ALPHA)
        contents["kohya"] |= {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b, f"{flat}.alpha": alpha}
    return contents


def write_files(contents: dict, directory: pathlib.Path) -> None:
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, lora_dropout=0.0, bias="none")
    config.save_pretrained(directory / "peft")
    header = {"unet.r": RANK, "unet.lora_alpha": RANK, "unet.target_modules": TARGETS, "unet.bias": "none"}
    metadata = {"diffusers": {"format": "pt", "lora_adapter_metadata": json.dumps(header)}}
    for reader, file in FILES.items():
        tensors = {key: tensor.contiguous() for key, tensor in contents[reader].items()}
        save_file(tensors, directory / file, metadata.get(reader, {"format": "pt"}))


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        model, exports = pathlib.Path(temporary) / "model", pathlib.Path(temporary) / "exports"
        unet = write_model(model)
        contents = file_contents(draw_lora(unet))
        write_files(contents, exports)
        loaded = {
            "base": load_models(model),
            "diffusers": with_pipeline(model, exports / FILES["diffusers"]),
            "peft": with_peft(model, exports),
            "kohya": with_pipeline(model, exports / FILES["kohya"]),
        }
        outputs = {name: forward(models["unet"]) for name, models in loaded.items()}
    for name, output in outputs.items():
        print(f"{name}: differs from peft by {relative(output, outputs['peft']):.1e}")
    save_file(draw_inputs(unet.config) | outputs, GOLDEN / "lora_forward.safetensors")
    keys = {FILES[reader]: {k: list(v.shape) for k, v in sorted(tensors.items())} for reader, tensors in contents.items()}
    (GOLDEN / "lora_files.json").write_text(json.dumps(keys, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
