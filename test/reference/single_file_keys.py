"""Makes golden/single_file_keys.json: for each weight of a single-file checkpoint (CompVis' names) the name and the shape that
diffusers gives it.

The names that a single file has are derived here from diffusers' own models, by undoing the renaming that
diffusers/scripts/convert_diffusers_to_original_stable_diffusion.py describes for four levels, for any number of them. Then
diffusers' own converters (diffusers/loaders/single_file_utils.py) rename a file of tagged tensors, and what they make must
have exactly the names and shapes that the models have. Their result is written.

Made with diffusers 0.42.1, transformers 5.23.0 and torch 2.11.0:

    python test/reference/single_file_keys.py

Running it again changes nothing.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel

GOLDEN = Path(__file__).parent / "golden" / "single_file_keys.json"
CROSS_DOWN, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"


def unet_config(widths: list[int], layers: int, attention: list[bool], context: int, heads: int, groups: int) -> dict:
    return {
        "attention_head_dim": heads,
        "block_out_channels": widths,
        "cross_attention_dim": context,
        "down_block_types": [CROSS_DOWN if has else "DownBlock2D" for has in attention],
        "in_channels": 4,
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "out_channels": 4,
        "up_block_types": [CROSS_UP if has else "UpBlock2D" for has in reversed(attention)],
    }


def vae_config(widths: list[int], layers: int, groups: int) -> dict:
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "out_channels": 3,
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }


def text_config(width: int, layers: int, vocabulary: int) -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 77,
        "num_attention_heads": max(1, width // 64),
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
    }


# The second has another number of layers, and attention on other levels, than any published model.
CASES = {
    "sd15": {
        "unet": unet_config([320, 640, 1280, 1280], 2, [True, True, True, False], 768, 8, 32),
        "vae": vae_config([128, 256, 512, 512], 2, 32),
        "text_encoder": text_config(768, 12, 49408),
    },
    "small": {
        "unet": unet_config([32, 64, 96, 96], 1, [False, True, True, False], 64, 2, 16),
        "vae": vae_config([16, 32, 48, 48], 1, 8),
        "text_encoder": text_config(64, 2, 1000),
    },
    "tiny": {
        "unet": unet_config([32, 64], 1, [True, False], 32, 4, 8),
        "vae": vae_config([8, 16, 16], 1, 4),
        "text_encoder": text_config(32, 2, 1024),
    },
}

UNET_LAYERS = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}


def unet_prefixes(config: dict) -> dict[str, str]:
    """Prefixes of diffusers' modules and those that CompVis' code gives to the same modules."""
    layers, levels = config["layers_per_block"], len(config["block_out_channels"])
    prefixes = {
        "mid_block.resnets.0.": "middle_block.0.",
        "mid_block.attentions.0.": "middle_block.1.",
        "mid_block.resnets.1.": "middle_block.2.",
    }
    for i in range(levels):
        for j in range(layers):
            number = (layers + 1) * i + j + 1
            prefixes[f"down_blocks.{i}.resnets.{j}."] = f"input_blocks.{number}.0."
            prefixes[f"down_blocks.{i}.attentions.{j}."] = f"input_blocks.{number}.1."
        prefixes[f"down_blocks.{i}.downsamplers.0.conv."] = f"input_blocks.{(layers + 1) * (i + 1)}.0.op."
        for j in range(layers + 1):
            number = (layers + 1) * i + j
            prefixes[f"up_blocks.{i}.resnets.{j}."] = f"output_blocks.{number}.0."
            prefixes[f"up_blocks.{i}.attentions.{j}."] = f"output_blocks.{number}.1."
        place = 2 if config["up_block_types"][i] == CROSS_UP else 1
        prefixes[f"up_blocks.{i}.upsamplers.0.conv."] = f"output_blocks.{(layers + 1) * i + layers}.{place}.conv."
    return prefixes


def ldm_unet_key(key: str, prefixes: dict[str, str]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    for ours, theirs in prefixes.items():
        if not key.startswith(ours):
            continue
        rest = key.removeprefix(ours)
        if ".resnets." in ours:
            layer = next(name for name in UNET_LAYERS if rest.startswith(name))
            rest = UNET_LAYERS[layer] + rest.removeprefix(layer)
        return theirs + rest
    raise KeyError(key)


VAE_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}


def ldm_vae_key(key: str, levels: int) -> str:
    for i in range(levels):
        key = key.replace(f"encoder.down_blocks.{i}.resnets.", f"encoder.down.{i}.block.")
        key = key.replace(f"encoder.down_blocks.{i}.downsamplers.0.", f"encoder.down.{i}.downsample.")
        key = key.replace(f"decoder.up_blocks.{i}.resnets.", f"decoder.up.{levels - 1 - i}.block.")
        key = key.replace(f"decoder.up_blocks.{i}.upsamplers.0.", f"decoder.up.{levels - 1 - i}.upsample.")
    for i in range(2):
        key = key.replace(f"mid_block.resnets.{i}.", f"mid.block_{i + 1}.")
    if "mid_block.attentions.0." in key:
        head, rest = key.split("mid_block.attentions.0.")
        layer = next(name for name in VAE_ATTENTION if rest.startswith(name))
        return f"{head}mid.attn_1.{VAE_ATTENTION[layer]}{rest.removeprefix(layer)}"
    return key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def ldm_shape(ldm_key: str, shape: list[int]) -> list[int]:
    """CompVis' VAE has convolutions of one pixel where diffusers has matrices."""
    is_convolution = ".attn_1." in ldm_key and len(shape) == 2
    return [*shape, 1, 1] if is_convolution else shape


def shapes_of(model: torch.nn.Module) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in model.state_dict().items()}


def text_shapes(config: dict) -> dict[str, list[int]]:
    shapes = shapes_of(CLIPTextModel(CLIPTextConfig(**config)))
    # transformers 5 leaves this level out; single files have it.
    named = {"text_model." + key.removeprefix("text_model."): shape for key, shape in shapes.items()}
    return {key: shape for key, shape in named.items() if not key.endswith("position_ids")}


def convert(case: dict) -> dict[str, dict[str, str]]:
    with torch.device("meta"):
        unet = shapes_of(UNet2DConditionModel(**case["unet"]))
        vae = shapes_of(AutoencoderKL(**case["vae"]))
        text = text_shapes(case["text_encoder"])
    prefixes = unet_prefixes(case["unet"])
    levels = len(case["vae"]["block_out_channels"])
    ldm_shapes: dict[str, list[int]] = {}
    ldm_shapes |= {"model.diffusion_model." + ldm_unet_key(key, prefixes): shape for key, shape in unet.items()}
    ldm_shapes |= {"first_stage_model." + ldm_vae_key(key, levels): shape for key, shape in vae.items()}
    ldm_shapes |= {"cond_stage_model.transformer." + key: shape for key, shape in text.items()}
    assert len(ldm_shapes) == len(unet) + len(vae) + len(text), "two weights got one name"

    # Each tensor is one number in every place: it tells which one it was, and takes no memory.
    names = list(ldm_shapes)
    checkpoint = {
        name: torch.tensor(tag).expand(ldm_shape(name, ldm_shapes[name])) for tag, name in enumerate(names)
    }
    converted = {
        "unet": (convert_ldm_unet_checkpoint(dict(checkpoint), case["unet"]), unet),
        "vae": (convert_ldm_vae_checkpoint(dict(checkpoint), case["vae"]), vae),
        "text_encoder": (convert_ldm_clip_checkpoint(dict(checkpoint)), text),
    }
    maps: dict[str, dict[str, str]] = {}
    for part, (tensors, expected) in converted.items():
        found = {key: list(tensor.shape) for key, tensor in tensors.items()}
        assert found == expected, f"{part}: diffusers' converter and model differ"
        lines = {}
        for key, tensor in tensors.items():
            ldm = names[int(tensor.flatten()[0])]
            lines[ldm] = f"{key} {'x'.join(map(str, tensor.shape))}"
        maps[part] = dict(sorted(lines.items()))
    return maps


def main() -> None:
    cases = {name: {"sizes": case, "keys": convert(case)} for name, case in CASES.items()}
    GOLDEN.write_text(json.dumps(cases, indent=0) + "\n")


if __name__ == "__main__":
    main()
