"""Writes golden/lora_import/: LoRA files that change every kind of layer, and golden/lora_import.safetensors: what text
encoder and UNet of the tiny model make of them, by diffusers and PEFT.

    .venv/bin/python test/reference/lora_import_golden.py

`tucker` holds a convolution with `lora_mid`, which diffusers does not read: its outputs come from the rule of LyCORIS,
written out in `add_branches`. So do those of the text encoder with the kohya file, of whose attention diffusers 0.42.1
loses the names with transformers 5. Of all other files that rule must give the same as their reader.
"""

import json
import pathlib
import tempfile

import torch
from check_exports import draw_inputs, encode, forward, load_models, relative, with_pipeline
from make_golden import GOLDEN, MODEL_SEED
from peft import PeftModel
from random_model import random_model
from safetensors.torch import save_file
from torch.nn import functional

FOLDER = GOLDEN / "lora_import"
RANK = 2
# alpha / rank is not 1, and not the same for linear layers and convolutions; but for the kohya file, of whose attention
# diffusers loses the alphas where they are not all alike.
ALPHA, CONV_ALPHA = 3.0, 1.0
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
UNET = [
    "conv_in",
    "conv_out",
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.attentions.0.proj_out",
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_k",
    f"{BLOCK}.attn2.to_out.0",
    f"{BLOCK}.ff.net.0.proj",
    f"{BLOCK}.ff.net.2",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv_shortcut",
    "mid_block.resnets.0.conv1",
    "mid_block.resnets.1.conv2",
    "mid_block.resnets.1.time_emb_proj",
    "up_blocks.0.upsamplers.0.conv",
]
LAYER = "text_model.encoder.layers.1"
TEXT_ENCODER = [f"{LAYER}.self_attn.v_proj", f"{LAYER}.mlp.fc1", f"{LAYER}.mlp.fc2"]
# Kept out of the kohya file: kohya's scripts don't train them, and diffusers does not know their kohya names.
NOT_IN_KOHYA = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")

Branch = dict[str, torch.Tensor]


def draw_branches(models: dict[str, torch.nn.Module]) -> dict[str, Branch]:
    """Down and up of each layer, by network and name; a convolution's down has its kernel."""
    generator = torch.Generator().manual_seed(21)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    branches = {}
    for network, names in {"unet": UNET, "text_encoder": TEXT_ENCODER}.items():
        for name in names:
            weight = models[network].get_submodule(strip_level(network, models, name)).weight
            ones = [1] * (weight.dim() - 2)
            branches[f"{network}.{name}"] = {
                "down": drawn(RANK, *weight.shape[1:]),
                "up": drawn(weight.shape[0], RANK, *ones),
                "alpha": torch.tensor(CONV_ALPHA if ones else ALPHA),
            }
    return branches


def strip_level(network: str, models: dict[str, torch.nn.Module], name: str) -> str:
    """transformers 5.6 took the level `text_model` of the text encoder's names away."""
    has_level = network != "text_encoder" or hasattr(models["text_encoder"], "text_model")
    return name if has_level else name.removeprefix("text_model.")


def tucker(models: dict[str, torch.nn.Module]) -> dict[str, Branch]:
    """A convolution's change in LyCORIS' Tucker form, and a linear layer's in the form of a 1 x 1 convolution."""
    generator = torch.Generator().manual_seed(22)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    conv = {"down": drawn(3, 64, 1, 1), "mid": drawn(3, 3, 3, 3), "up": drawn(64, 3, 1, 1)}
    linear = {"down": drawn(RANK, 32, 1, 1), "up": drawn(256, RANK, 1, 1)}
    return {
        "unet.mid_block.resnets.0.conv1": conv | {"alpha": torch.tensor(CONV_ALPHA)},
        f"unet.{BLOCK}.ff.net.0.proj": linear | {"alpha": torch.tensor(ALPHA)},
    }


def kohya_name(name: str) -> str:
    network, path = name.split(".", 1)
    return f"lora_{'te' if network == 'text_encoder' else network}_{path.replace('.', '_')}"


def write_kohya(branches: dict[str, Branch], file: pathlib.Path) -> None:
    tensors = {}
    for name, branch in branches.items():
        for part, tensor in branch.items():
            tensors[f"{kohya_name(name)}.{part if part == 'alpha' else f'lora_{part}.weight'}"] = tensor
    save_file(tensors, file, {"format": "pt"})


def peft_config(branches: dict[str, Branch], network: str) -> dict:
    names = [name.split(".", 1)[1] for name in branches if name.startswith(network)]
    pattern = {name: CONV_ALPHA for name in names if branches[f"{network}.{name}"]["down"].dim() == 4}
    # Without the text encoder's level `text_model`, which is there or not by the version of transformers.
    targets = [name.removeprefix("text_model.") for name in names]
    return {"r": RANK, "lora_alpha": ALPHA, "alpha_pattern": pattern, "target_modules": targets, "bias": "none"}


def write_diffusers(branches: dict[str, Branch], file: pathlib.Path) -> None:
    tensors, header = {}, {}
    for name, branch in branches.items():
        tensors |= {f"{name}.lora_A.weight": branch["down"], f"{name}.lora_B.weight": branch["up"]}
    for network in ("unet", "text_encoder"):
        header |= {f"{network}.{key}": value for key, value in peft_config(branches, network).items()}
    save_file(tensors, file, {"format": "pt", "lora_adapter_metadata": json.dumps(header)})


def write_peft(branches: dict[str, Branch], folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    own = {name.removeprefix("unet."): branch for name, branch in branches.items() if name.startswith("unet.")}
    tensors = {}
    for name, branch in own.items():
        path = f"base_model.model.{name}"
        tensors |= {f"{path}.lora_A.weight": branch["down"], f"{path}.lora_B.weight": branch["up"]}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "lora_dropout": 0.0, **peft_config(branches, "unet")}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def run_branch(module: torch.nn.Module, branch: Branch, x: torch.Tensor) -> torch.Tensor:
    down, up = branch["down"], branch["up"]
    scale = branch["alpha"].item() / down.shape[0]
    if isinstance(module, torch.nn.Linear):
        return functional.linear(functional.linear(x, down.flatten(1)), up.flatten(1)) * scale
    kernel = {"stride": module.stride, "padding": module.padding}
    if "mid" in branch:
        return functional.conv2d(functional.conv2d(functional.conv2d(x, down), branch["mid"], **kernel), up) * scale
    return functional.conv2d(functional.conv2d(x, down, **kernel), up) * scale


def add_branches(models: dict[str, torch.nn.Module], branches: dict[str, Branch]) -> None:
    """kohya-ss/sd-scripts 6a584cad, networks/lora.py, LoRAModule.forward: up(down(x)) * alpha / rank; with `mid`
    KohakuBlueleaf/LyCORIS 1d3a9a28, lycoris/modules/locon.py, LoConModule.forward: up(mid(down(x))) * alpha / rank."""
    for name, branch in branches.items():
        network, path = name.split(".", 1)
        module = models[network].get_submodule(strip_level(network, models, path))
        module.register_forward_hook(lambda m, x, y, branch=branch: y + run_branch(m, branch, x[0]))


def with_peft(model: pathlib.Path, folder: pathlib.Path) -> dict[str, torch.nn.Module]:
    models = load_models(model)
    return models | {"unet": PeftModel.from_pretrained(models["unet"], folder)}


@torch.no_grad()
def outputs(models: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    return {"unet": forward(models["unet"]), "text_encoder": encode(models["text_encoder"])}


def main() -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        model = pathlib.Path(temporary) / "model"
        for name, part in random_model("tiny", MODEL_SEED).items():
            part.save_pretrained(model / name)
        base = load_models(model)
        branches = draw_branches(base)
        for_kohya = {
            name: branch | {"alpha": torch.tensor(ALPHA)}
            for name, branch in branches.items()
            if not name.endswith(NOT_IN_KOHYA)
        }
        for_peft = {name: branch for name, branch in branches.items() if name.startswith("unet.")}
        files = {
            "kohya": (for_kohya, lambda: with_pipeline(model, FOLDER / "kohya.safetensors")),
            "diffusers": (branches, lambda: with_pipeline(model, FOLDER / "diffusers.safetensors")),
            "peft": (for_peft, lambda: with_peft(model, FOLDER / "peft")),
            "tucker": (tucker(base), None),
        }
        write_kohya(for_kohya, FOLDER / "kohya.safetensors")
        write_diffusers(branches, FOLDER / "diffusers.safetensors")
        write_peft(for_peft, FOLDER / "peft")
        write_kohya(tucker(base), FOLDER / "tucker.safetensors")

        base_outputs = outputs(base)
        draw = torch.Generator().manual_seed(1)
        golden = draw_inputs(base["unet"].config) | {
            "token_ids": torch.randint(0, base["text_encoder"].config.vocab_size, (1, 77), generator=draw)
        }
        for file, (own, read) in files.items():
            ruled = load_models(model)
            add_branches(ruled, own)
            by_rule = outputs(ruled)
            found = by_rule if read is None else outputs(read())
            if file == "kohya":
                found["text_encoder"] = by_rule["text_encoder"]
            for network, output in found.items():
                rule, effect = relative(by_rule[network], output), relative(base_outputs[network], output)
                print(f"{file}, {network}: the rule differs by {rule:.1e}, the base model by {effect:.1e}")
                assert rule < 1e-5
                golden[f"{file}.{network}"] = output
    save_file(golden, GOLDEN / "lora_import.safetensors")


if __name__ == "__main__":
    main()
