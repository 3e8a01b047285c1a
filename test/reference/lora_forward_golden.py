"""Writes what diffusers and PEFT make of the weight files that Brushwork writes, each file loaded by its own reader.

    .venv/bin/python test/reference/lora_forward_golden.py [--program build/brushwork-native]

golden/lora_headers.json                     headers and adapter configurations of both LoRAs as Brushwork writes them
golden/lora_files<case>.json                 keys and shapes in each file
golden/lora_forward<case>.safetensors        outputs of the tiny model once each reader has loaded its file

for a LoRA of the UNet (no case) and one of the text encoder as well (case _text_encoder). The files are put together
here from the committed headers and a LoRA of whole numbers from a generator, divided, so that lora_files_test.cc has the
same bits; that test compares headers and keys with those of its exports. `--program` takes the headers anew from exports
of that program, for when the exporter is changed on purpose.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import torch
from check_exports import Models, draw_inputs, draw_token_ids, encode, forward, load_models, relative, with_peft, with_pipeline
from random_model import random_model
from recipe import TARGETS, TEXT_TARGETS
from safetensors import safe_open
from safetensors.torch import save_file

GOLDEN = pathlib.Path(__file__).parent / "golden"
HEADERS = GOLDEN / "lora_headers.json"
RANK, ALPHA = 4, 6.0
CASES = ("", "_text_encoder")
PEFT_FOLDERS = {"unet": "peft", "text_encoder": "peft_text_encoder"}
CONFIG = "adapter_config.json"

Lora = dict[str, tuple[torch.Tensor, torch.Tensor]]
Contents = dict[str, dict[str, torch.Tensor]]


def exported_headers(program: pathlib.Path) -> dict:
    """By case and file: the header of a weight file, the text of a configuration."""
    headers = {}
    with tempfile.TemporaryDirectory() as directory:

        def run(command: str, **options) -> None:
            words = [str(word) for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
            subprocess.run([program.absolute(), command, *words], cwd=directory, check=True, stdout=subprocess.DEVNULL)

        run("make-base-model", directory="model", preset="tiny")
        job = {"model": "model", "rank": RANK, "alpha": ALPHA, "epochs": 1, "images": 1, "size": 64}
        for number, case in enumerate(CASES):
            run("train-synthetic", **job, output=f"exports{case}", train_text_encoder=number)
            headers[case] = read_headers(pathlib.Path(directory) / f"exports{case}")
    return headers


def read_headers(exports: pathlib.Path) -> dict:
    headers = {}
    for file in sorted(exports.rglob("*")):
        name = str(file.relative_to(exports))
        if file.name == CONFIG:
            headers[name] = file.read_text()
        elif file.suffix == ".safetensors" and file.stem != "checkpoint":
            with safe_open(file, "pt") as opened:
                headers[name] = opened.metadata()
    return headers


def draw_lora(models: Models, case: str) -> Lora:
    """A and B of each module with its network in front, of each network sorted by code point."""
    generator = torch.Generator().manual_seed(12)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randint(-1000, 1001, shape, generator=generator) / 4000

    lora = {}
    for network, targets in {"unet": TARGETS, "text_encoder": TEXT_TARGETS if case else []}.items():
        # transformers 5 leaves a level of the text encoder's names out in memory.
        level = "text_model." if network == "text_encoder" else ""
        named = {level + name.removeprefix(level): module for name, module in models[network].named_modules()}
        for name in sorted(name for name in named if name.endswith(tuple(f".{target}" for target in targets))):
            module = named[name]
            lora[f"{network}.{name}"] = (drawn(RANK, module.in_features), drawn(module.out_features, RANK))
    return lora


def file_contents(lora: Lora) -> Contents:
    diffusers, peft, kohya = {}, {}, {}
    for key, (a, b) in lora.items():
        network, name = key.split(".", 1)
        diffusers |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b * (ALPHA / RANK)}
        own = peft.setdefault(f"{PEFT_FOLDERS[network]}/adapter_model.safetensors", {})
        # With and without the level of the text encoder's names.
        for path in {name, name.removeprefix("text_model.")}:
            own |= {f"base_model.model.{path}.lora_A.weight": a, f"base_model.model.{path}.lora_B.weight": b}
        flat = f"lora_{'te' if network == 'text_encoder' else network}_{name.replace('.', '_')}"
        kohya |= {f"{flat}.lora_down.weight": a, f"{flat}.lora_up.weight": b, f"{flat}.alpha": torch.tensor(ALPHA)}
    return {"lora_weights.safetensors": diffusers, **peft, "kohya.safetensors": kohya}


def write_files(contents: Contents, headers: dict, directory: pathlib.Path) -> None:
    assert contents.keys() == {name for name in headers if not name.endswith(CONFIG)}
    for name, header in headers.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(CONFIG):
            (directory / name).write_text(header)
        else:
            # Clones, since PEFT's file has each tensor under two names.
            save_file({key: tensor.clone() for key, tensor in contents[name].items()}, directory / name, header)


def outputs(model: pathlib.Path, exports: pathlib.Path, case: str) -> dict[str, torch.Tensor]:
    """What each reader's networks make of the inputs, and the inputs."""
    loaded = {
        "base": load_models(model),
        "diffusers": with_pipeline(model, exports / "lora_weights.safetensors"),
        "peft": with_peft(model, exports),
        "kohya": with_pipeline(model, exports / "kohya.safetensors"),
    }
    found = draw_inputs(loaded["base"]["unet"].config)
    found |= {name: forward(models["unet"]) for name, models in loaded.items()}
    if case:
        found["token_ids"] = draw_token_ids(loaded["base"]["text_encoder"].config)
        found |= {f"text_encoder.{name}": encode(models["text_encoder"]) for name, models in loaded.items()}
    for key in found:
        prefix, _, name = key.rpartition(".")
        if name in loaded:
            expected = found[f"{prefix}.peft" if prefix else "peft"]
            print(f"lora_forward{case}, {key}: differs from peft by {relative(found[key], expected):.1e}")
    return found


def write_json(file: pathlib.Path, value: dict) -> None:
    file.write_text(json.dumps(value, separators=(",", ":"), sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.program:
        write_json(HEADERS, exported_headers(options.program))
    headers = json.loads(HEADERS.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        model = pathlib.Path(temporary) / "model"
        models = random_model("tiny", 7)
        for name, part in models.items():
            part.save_pretrained(model / name)
        for case in CASES:
            exports = pathlib.Path(temporary) / f"exports{case}"
            contents = file_contents(draw_lora(models, case))
            write_files(contents, headers[case], exports)
            save_file(outputs(model, exports, case), GOLDEN / f"lora_forward{case}.safetensors")
            keys = {name: {k: list(v.shape) for k, v in sorted(tensors.items())} for name, tensors in contents.items()}
            write_json(GOLDEN / f"lora_files{case}.json", keys)


if __name__ == "__main__":
    main()
