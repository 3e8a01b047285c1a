"""Loads the three weight files of one training with diffusers and PEFT and compares them; run by hand.

    .venv/bin/python test/reference/check_exports.py <base model directory> <export directory>

The export directory holds lora_weights.safetensors, peft/ and kohya.safetensors. Each file is loaded by its own reader
into a fresh UNet: the change of every module and the output of one forward pass must agree.
"""

import pathlib
import sys

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from transformers import CLIPTextModel

TOLERANCE = 1e-5  # float32; folding alpha / rank into B rounds once where that is no power of two


def load_unet(model: pathlib.Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(model, subfolder="unet").eval()


def with_pipeline(model: pathlib.Path, file: pathlib.Path) -> torch.nn.Module:
    unet = load_unet(model)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(model, subfolder="vae"),
        text_encoder=CLIPTextModel.from_pretrained(model, subfolder="text_encoder"),
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    return unet


def changes(unet: torch.nn.Module) -> dict[str, torch.Tensor]:
    """ΔW of every LoRA module, by diffusers' name."""
    found = {}
    for name, module in unet.named_modules():
        if isinstance(module, LoraLinear):
            (adapter,) = module.active_adapters
            found[name.removeprefix("base_model.model.")] = module.get_delta_weight(adapter).detach()
    return found


def forward(unet: torch.nn.Module) -> torch.Tensor:
    config = unet.config
    draw = torch.Generator().manual_seed(0)
    sample = torch.randn(1, config["in_channels"], 16, 16, generator=draw)
    text = torch.randn(1, 77, config["cross_attention_dim"], generator=draw)
    with torch.no_grad():
        return unet(sample, torch.tensor([500]), encoder_hidden_states=text).sample


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def main() -> None:
    model, exports = map(pathlib.Path, sys.argv[1:])
    base = forward(load_unet(model))
    loaded = {
        "peft": PeftModel.from_pretrained(load_unet(model), exports / "peft"),
        "diffusers": with_pipeline(model, exports / "lora_weights.safetensors"),
        "kohya": with_pipeline(model, exports / "kohya.safetensors"),
    }
    expected_changes, expected_output = changes(loaded["peft"]), forward(loaded["peft"])
    print(f"peft: {len(expected_changes)} modules, output differs from the base by {relative(expected_output, base):.1e}")
    faults = [] if relative(expected_output, base) > TOLERANCE else ["the LoRA changes nothing"]
    for name in ("diffusers", "kohya"):
        actual = changes(loaded[name])
        if actual.keys() != expected_changes.keys():
            faults.append(f"{name} has other modules than peft")
            continue
        worst = max(relative(actual[key], expected_changes[key]) for key in actual)
        output = relative(forward(loaded[name]), expected_output)
        print(f"{name}: worst module {worst:.1e}, output {output:.1e}")
        if max(worst, output) > TOLERANCE:
            faults.append(f"{name} differs from peft")
    sys.exit("; ".join(faults) or None)


if __name__ == "__main__":
    main()
