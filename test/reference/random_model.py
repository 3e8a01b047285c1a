"""The random base models of `native/core/model_io/random_base_model.cc`, drawn with torch by the same formula.

Each tensor comes from a CPU generator of its own, seeded with mix64(seed ^ fnv1a64("<component>/<key>")).
"""

import json
import math
import pathlib

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

MASK = 2**64 - 1


def mix64(z: int) -> int:
    """SplitMix64, as the training recipe defines its random streams with it."""
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def fnv1a64(text: str) -> int:
    hash_ = 0xCBF29CE484222325
    for byte in text.encode():
        hash_ = ((hash_ ^ byte) * 0x100000001B3) & MASK
    return hash_


def draw(component: str, key: str, shape: torch.Size, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(mix64(seed ^ fnv1a64(f"{component}/{key}")))
    drawn = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return drawn / math.sqrt(math.prod(shape[1:]))
    if key.endswith(".weight"):
        return 1.0 + 0.1 * drawn
    return drawn * 0.05


UNETS = {
    "tiny": {"widths": [32, 64], "layers": 1, "heads": 4, "groups": 8, "text": 32, "sample_size": 16},
    "small": {"widths": [32, 64, 96, 96], "layers": 2, "heads": 2, "groups": 16, "text": 64, "sample_size": 32},
}
VAES = {
    "tiny": {"widths": [8, 16, 16], "groups": 4},
    "small": {"widths": [16, 32, 48, 48], "groups": 8},
}
TEXTS = {"tiny": {"width": 32, "layers": 2}, "small": {"width": 64, "layers": 4}}


def make_unet(preset: str) -> UNet2DConditionModel:
    size = UNETS[preset]
    levels = len(size["widths"])
    return UNet2DConditionModel(
        sample_size=size["sample_size"],
        block_out_channels=size["widths"],
        layers_per_block=size["layers"],
        norm_num_groups=size["groups"],
        cross_attention_dim=size["text"],
        attention_head_dim=size["heads"],
        down_block_types=["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (levels - 1),
    )


def make_vae(preset: str) -> AutoencoderKL:
    size = VAES[preset]
    levels = len(size["widths"])
    return AutoencoderKL(
        block_out_channels=size["widths"],
        norm_num_groups=size["groups"],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        sample_size=256,
    )


def make_text_encoder(preset: str) -> CLIPTextModel:
    size = TEXTS[preset]
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=1024,
            hidden_size=size["width"],
            intermediate_size=4 * size["width"],
            num_hidden_layers=size["layers"],
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=size["width"],
            bos_token_id=1022,
            eos_token_id=1023,
            pad_token_id=1023,
        )
    )


def file_key(component: str, key: str) -> str:
    """The key as Stable Diffusion 1.5's files spell it; transformers 5 leaves a level out in memory."""
    return key if component != "text_encoder" or key.startswith("text_model.") else f"text_model.{key}"


def components(preset: str) -> dict[str, torch.nn.Module]:
    return {"unet": make_unet(preset), "vae": make_vae(preset), "text_encoder": make_text_encoder(preset)}


def random_model(preset: str, seed: int) -> dict[str, torch.nn.Module]:
    """unet, vae and text_encoder with the random weights, frozen."""
    models = components(preset)
    for component, model in models.items():
        state = model.state_dict()
        model.load_state_dict({k: draw(component, file_key(component, k), v.shape, seed) for k, v in state.items()})
        model.requires_grad_(False).eval()
    return models


def make_scheduler(prediction_type: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
    )


def write_weight_keys(path: pathlib.Path) -> None:
    """Keys and shapes of every weight of both presets, as diffusers and transformers build them."""
    keys = {
        preset: {
            component: {file_key(component, k): list(v.shape) for k, v in sorted(model.state_dict().items())}
            for component, model in components(preset).items()
        }
        for preset in UNETS
    }
    path.write_text(json.dumps(keys, separators=(",", ":"), sort_keys=True) + "\n")
