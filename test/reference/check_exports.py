"""Loads the weight files of one training with diffusers and PEFT and compares them.

    .venv/bin/python test/reference/check_exports.py <base model directory> <export directory> [--save FILE] [--text-encoder]

The export directory holds lora_weights.safetensors, peft/ and kohya.safetensors, and peft_text_encoder/ where the text
encoder was trained. Each file is loaded by its own reader into fresh models: the change of every module and the outputs
of text encoder and UNet must agree. `--save` keeps input and outputs of the UNet; `npm run test:fidelity` compares them
with ours. `--text-encoder`: it was trained, so that it must have a LoRA.
"""

import argparse
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

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


def draw_inputs(unet_config: dict) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(1, unet_config["in_channels"], 16, 16, generator=draw),
        "timesteps": torch.tensor([500]),
        "text": torch.randn(1, 77, unet_config["cross_attention_dim"], generator=draw),
    }


@torch.no_grad()
def forward(unet: torch.nn.Module) -> torch.Tensor:
    inputs = draw_inputs(unet.config)
    return unet(inputs["sample"], inputs["timesteps"], encoder_hidden_states=inputs["text"]).sample


def draw_token_ids(text_config: CLIPTextConfig) -> torch.Tensor:
    return torch.randint(0, text_config.vocab_size, (1, 77), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def encode(text_encoder: torch.nn.Module) -> torch.Tensor:
    return text_encoder(draw_token_ids(text_encoder.config)).last_hidden_state


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("exports", type=pathlib.Path)
    parser.add_argument("--save", type=pathlib.Path)
    parser.add_argument("--text-encoder", action="store_true")
    options = parser.parse_args()
    model, exports = options.model, options.exports
    readers = {
        "base": lambda: load_models(model),
        "peft": lambda: with_peft(model, exports),
        "diffusers": lambda: with_pipeline(model, exports / "lora_weights.safetensors"),
        "kohya": lambda: with_pipeline(model, exports / "kohya.safetensors"),
    }
    changes_of, outputs, texts = {}, {}, {}
    # One after the other: a full-size UNet takes 3.4 GB.
    for name, read in readers.items():
        models = read()
        inputs = draw_inputs(models["unet"].config)
        changes_of[name] = changes(models)
        outputs[name], texts[name] = forward(models["unet"]), encode(models["text_encoder"])
        del models

    expected = changes_of["peft"]
    trained = {network: sum(key.startswith(f"{network}.") for key in expected) for network in ("unet", "text_encoder")}
    effects = {"unet": relative(outputs["peft"], outputs["base"]), "text_encoder": relative(texts["peft"], texts["base"])}
    faults = [f"{key} is not changed" for key, change in expected.items() if not change.any()]
    if options.text_encoder and not trained["text_encoder"]:
        faults.append("the text encoder has no LoRA")
    for network, count in trained.items():
        print(f"peft: {count} modules of {network}, output differs from the base by {effects[network]:.1e}")
        if count and effects[network] <= TOLERANCE:
            faults.append(f"the LoRA changes nothing in {network}")
    for name in ("diffusers", "kohya"):
        actual = changes_of[name]
        if actual.keys() != expected.keys():
            faults.append(f"{name} has other modules than peft")
            continue
        worst = max(relative(actual[key], expected[key]) for key in actual)
        output, text = relative(outputs[name], outputs["peft"]), relative(texts[name], texts["peft"])
        print(f"{name}: worst module {worst:.1e}, output {output:.1e}, text {text:.1e}")
        if max(worst, output, text) > TOLERANCE:
            faults.append(f"{name} differs from peft")
    if options.save:
        save_file(inputs | {f"unet:{name}": output.contiguous() for name, output in outputs.items()}, options.save)
    sys.exit("; ".join(faults) or None)


if __name__ == "__main__":
    main()
