"""Loads the weight files of one training with diffusers and PEFT and compares them; run by hand.

    .venv/bin/python test/reference/check_exports.py <base model directory> <export directory>

The export directory holds lora_weights.safetensors, peft/ and kohya.safetensors, and peft_text_encoder/ where the text
encoder was trained. Each file is loaded by its own reader into fresh models: the change of every module and the output of
one forward pass, from token ids to the predicted noise, must agree.
"""

import pathlib
import sys

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from transformers import CLIPTextModel

TOLERANCE = 1e-5  # float32; folding alpha / rank into B rounds once where that is no power of two


Models = dict[str, torch.nn.Module]


def load_models(model: pathlib.Path) -> Models:
    return {
        "unet": UNet2DConditionModel.from_pretrained(model, subfolder="unet").eval(),
        "text_encoder": CLIPTextModel.from_pretrained(model, subfolder="text_encoder").eval(),
    }


def with_peft(model: pathlib.Path, exports: pathlib.Path) -> Models:
    models = load_models(model)
    folders = {"unet": "peft", "text_encoder": "peft_text_encoder"}
    return {
        name: PeftModel.from_pretrained(models[name], exports / folder) if (exports / folder).exists() else models[name]
        for name, folder in folders.items()
    }


def with_pipeline(model: pathlib.Path, file: pathlib.Path) -> Models:
    models = load_models(model)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(model, subfolder="vae"),
        tokenizer=None,
        **models,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    return models


def changes(models: Models) -> dict[str, torch.Tensor]:
    """ΔW of every LoRA module, by network and name."""
    found = {}
    for network, model in models.items():
        for name, module in model.named_modules():
            if isinstance(module, LoraLinear):
                (adapter,) = module.active_adapters
                key = f"{network}.{name.removeprefix('base_model.model.')}"
                found[key] = module.get_delta_weight(adapter).detach()
    return found


def forward(models: Models) -> torch.Tensor:
    unet, text_encoder = models["unet"], models["text_encoder"]
    draw = torch.Generator().manual_seed(0)
    sample = torch.randn(1, unet.config["in_channels"], 16, 16, generator=draw)
    token_ids = torch.randint(0, text_encoder.config.vocab_size, (1, 77), generator=draw)
    with torch.no_grad():
        text = text_encoder(token_ids).last_hidden_state
        return unet(sample, torch.tensor([500]), encoder_hidden_states=text).sample


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def main() -> None:
    model, exports = map(pathlib.Path, sys.argv[1:])
    base = forward(load_models(model))
    loaded = {
        "peft": with_peft(model, exports),
        "diffusers": with_pipeline(model, exports / "lora_weights.safetensors"),
        "kohya": with_pipeline(model, exports / "kohya.safetensors"),
    }
    expected_changes, expected_output = changes(loaded["peft"]), forward(loaded["peft"])
    count = {network: sum(key.startswith(f"{network}.") for key in expected_changes) for network in loaded["peft"]}
    print(f"peft: modules {count}, output differs from the base by {relative(expected_output, base):.1e}")
    faults = [f"{key} is not changed" for key, change in expected_changes.items() if not change.any()]
    faults += [] if relative(expected_output, base) > TOLERANCE else ["the LoRA changes nothing"]
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
