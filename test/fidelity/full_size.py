"""A base model with the sizes of Stable Diffusion 1.5 and random weights, written in diffusers layout.

    python test/fidelity/full_size.py <directory>

The sizes are those of https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5: 860 M parameters in the UNet,
84 M in the VAE, 123 M in the text encoder. The weights are drawn by the formula of test/reference/random_model.py, which
keeps the variance of what runs through.
"""

import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "reference"))

from random_model import draw, file_key, make_scheduler

SEED = 15


def components() -> dict[str, torch.nn.Module]:
    """The three models without memory for their weights."""
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel(
                sample_size=64,
                block_out_channels=[320, 640, 1280, 1280],
                layers_per_block=2,
                cross_attention_dim=768,
                attention_head_dim=8,
            ),
            "vae": AutoencoderKL(
                block_out_channels=[128, 256, 512, 512],
                layers_per_block=2,
                down_block_types=["DownEncoderBlock2D"] * 4,
                up_block_types=["UpDecoderBlock2D"] * 4,
                sample_size=512,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=49408,
                    hidden_size=768,
                    intermediate_size=3072,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                    max_position_embeddings=77,
                    projection_dim=768,
                    bos_token_id=49406,
                    eos_token_id=49407,
                    pad_token_id=49407,
                    architectures=["CLIPTextModel"],
                )
            ),
        }


def write_weights(component: str, model: torch.nn.Module, file: pathlib.Path) -> int:
    """Returns the number of parameters."""
    shapes = {file_key(component, key): value.shape for key, value in model.state_dict().items()}
    weights = {key: draw(component, key, shape, SEED) for key, shape in shapes.items()}
    save_file(weights, file, {"format": "pt"})
    return sum(weight.numel() for weight in weights.values())


def main(directory: pathlib.Path) -> None:
    for component, model in components().items():
        folder = directory / component
        folder.mkdir(parents=True, exist_ok=True)
        is_text = component == "text_encoder"
        if is_text:
            model.config.save_pretrained(folder)
        else:
            model.save_config(folder)
        name = "model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"
        count = write_weights(component, model, folder / name)
        print(f"{component}: {count / 1e6:.1f} M parameters", flush=True)
    make_scheduler().save_config(directory / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", DDPMScheduler.__name__],
        "text_encoder": ["transformers", CLIPTextModel.__name__],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", UNet2DConditionModel.__name__],
        "vae": ["diffusers", AutoencoderKL.__name__],
    }
    (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
