"""Compares Brushwork with diffusers, transformers and PEFT on a model with the sizes of Stable Diffusion 1.5.

Run by `npm run test:fidelity`; see docs/training.md. Both sides run one after the other, each in a process of its own, so
that times and memory can be set side by side. Exits with 1 where a limit is exceeded.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace

# Threads that spin while they wait slow down whatever runs beside them; the service sets the same.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

HERE = pathlib.Path(__file__).parent
PROGRAM = HERE.parents[1] / "build" / "brushwork-native"

# Relative 2-norm of the difference; losses relative.
LIMITS = {
    "text encoder": 1e-4,
    "VAE posterior, mean": 1e-4,
    "VAE posterior, std": 1e-4,
    "VAE decoder": 1e-4,
    "UNet": 1e-4,
    "each loss": 1e-5,
    "each first gradient of B": 1e-4,
    "each final A": 2e-3,
    "each final B": 2e-3,
    # Of what the LoRA changes in the UNet's output: an alpha that is off by 1 % is above it.
    "effect of the LoRA through peft": 5e-3,
    "effect of the LoRA through diffusers": 5e-3,
    "effect of the LoRA through kohya": 5e-3,
}
# A GPU sums in another order, and the two sides choose other kernels. A guess: no GPU has been tried.
GPU_SLACK = 10
# Half precision rounds after every operation, so the order of operations shows: losses as in the trainings of
# docs/training.md. Measured on the CPU with the preset small and 128 px: UNet 2.0e-3 and 1.7e-2, losses 1.3e-4 and
# 8.2e-4, gradients 5.9e-3 and 2.0e-2.
HALF_LIMITS = {
    "fp16": {"UNet": 5e-3, "each loss": 4e-4, "each first gradient of B": 2e-2},
    "bf16": {"UNet": 5e-2, "each loss": 1.5e-3, "each first gradient of B": 1e-1},
}
# Not compared in half precision: the first steps of AdamW know little but a gradient's sign, and rounding turns many.
FINAL = ("each final A", "each final B")
# A small model's memory is mostly that of the program.
SMALL_MODEL_MIB = 500
# Loading maps the files and copies each weight once: its peak must stay below two copies.
PEAK_LIMIT = 1.25

# Two optimizer steps: a window of two micro-steps, and a short one. The recipe's defaults else, but no dropout.
JOB = {
    "seed": 5,
    "rank": 16,
    "alpha": 32.0,
    "epochs": 1,
    "learning_rate": 1e-4,
    "batch_size": 1,
    "gradient_accumulation": 2,
}
IMAGE_COUNT = 3
# Of a small model's both networks, for the readers of the text encoder's files.
TEXT_ENCODER_JOB = {
    "rank": 4,
    "alpha": 6.0,
    "epochs": 2,
    "learning-rate": 1e-3,
    "images": 2,
    "size": 64,
    "train-text-encoder": 1,
}


@dataclass(frozen=True)
class Settings:
    model: pathlib.Path
    work: pathlib.Path
    threads: int
    size_px: int
    training_size_px: int
    device: str = "cpu"
    precision: str = "no"
    program: pathlib.Path = PROGRAM

    def limits(self) -> dict[str, float]:
        """By name, of what is compared on this device in this precision."""
        if self.device == "cpu" and self.precision == "no":
            return LIMITS
        # What the exports' readers make of them has nothing to do with the device.
        slack = 1 if self.device == "cpu" else GPU_SLACK
        limits = {name: slack * limit for name, limit in LIMITS.items() if not name.startswith("effect")}
        if self.precision != "no":
            limits = {name: limit for name, limit in limits.items() if name not in FINAL} | HALF_LIMITS[self.precision]
        return limits


def run(command: list) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def reference(settings: Settings, *words) -> dict:
    place = f"{settings.device}:{settings.threads}"
    return json.loads(run([sys.executable, HERE / "reference.py", place, *words]).splitlines()[-1])


def ours(settings: Settings, command: str, *words) -> list[dict]:
    place = ["--threads", settings.threads, "--device", settings.device, "--precision", settings.precision]
    output = run([settings.program, command, "--model", settings.model, *place, *words])
    return [json.loads(line) for line in output.splitlines()]


def as_words(options: dict) -> list:
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def say(text: str) -> None:
    print(text, flush=True)


def compare_forward(settings: Settings) -> dict[str, float]:
    work = settings.work
    inputs = work / "inputs.safetensors"
    reference(settings, "inputs", settings.model, inputs, settings.size_px)
    say(f"text encoder, VAE and UNet at {settings.size_px} px: diffusers …")
    theirs = reference(settings, "forward", settings.model, settings.precision, inputs, work / "theirs.safetensors")
    say(f"text encoder, VAE and UNet at {settings.size_px} px: Brushwork …")
    (mine,) = ours(settings, "forward", "--inputs", inputs, "--output", work / "ours.safetensors")
    print_sides(
        [
            ("loading", "load_s", "s"),
            ("own memory after loading", "own_memory_after_load_mib", "MiB"),
            ("peak memory of loading", "peak_rss_after_load_mib", "MiB"),
            *((name, name, "s") for name in ("text_encoder", "vae_encode", "vae_decode", "unet")),
            ("peak memory", "peak_rss_mib", "MiB"),
        ],
        {**mine, **mine["seconds"]},
        {**theirs, **theirs["seconds"]},
    )
    weights = sum(file.stat().st_size for file in settings.model.glob("*/*.safetensors")) / 2**20
    share = mine["peak_rss_after_load_mib"] / weights
    say(f"  the weights are {weights:.0f} MiB, Brushwork's peak of loading is {share:.2f} times that")
    # A process with a GPU has CUDA's own memory as well.
    if settings.device == "cpu" and weights > SMALL_MODEL_MIB and share > PEAK_LIMIT:
        sys.exit(f"loading takes more than {PEAK_LIMIT} times the weights' memory")
    names = {
        "text encoder": "text_encoder",
        "VAE posterior, mean": "vae.mean",
        "VAE posterior, std": "vae.std",
        "VAE decoder": "vae.decoded",
        "UNet": "unet",
    }
    return compare(settings, [(name, "ours", "theirs", key) for name, key in names.items()])


def compare_training(settings: Settings) -> dict[str, float]:
    work, size_px = settings.work, settings.training_size_px
    say(f"two training steps of {IMAGE_COUNT} pictures of {size_px} px: diffusers + PEFT …")
    job = {**JOB, "image_count": IMAGE_COUNT, "size_px": size_px, "precision": settings.precision}
    theirs = reference(settings, "train", settings.model, work, json.dumps(job))
    say(f"two training steps of {IMAGE_COUNT} pictures of {size_px} px: Brushwork …")
    options = {"size": size_px, "images": IMAGE_COUNT, "dropout": 0, "gradients": work / "ours-gradients.safetensors"}
    options |= {key.replace("_", "-"): value for key, value in JOB.items() if not key.endswith(("size", "accumulation"))}
    options |= {"batch": JOB["batch_size"], "accumulation": JOB["gradient_accumulation"], "output": work / "style"}
    *steps, mine = ours(settings, "train-synthetic", *as_words(options))
    print_sides([("training, with preparation", "seconds", "s"), ("peak memory", "peak_rss_mib", "MiB")], mine, theirs)
    losses = [step["loss"] for step in steps]
    say(f"  losses {losses}, of the reference {theirs['losses']}")
    assert len(losses) == len(theirs["losses"])
    worst = max(abs(mine / expected - 1) for mine, expected in zip(losses, theirs["losses"]))
    return {"each loss": worst} | compare(
        settings,
        [
            ("each first gradient of B", "ours-gradients", "gradients", "lora_B.weight"),
            ("each final A", "style/peft/adapter_model", "final", "lora_A.weight"),
            ("each final B", "style/peft/adapter_model", "final", "lora_B.weight"),
        ],
    )


def check_exports(model: pathlib.Path, exports: pathlib.Path, *words) -> None:
    """Prints what the readers of the weight files make of them; ends where one differs."""
    report = run([sys.executable, HERE.parent / "reference" / "check_exports.py", model, exports, *words])
    say("  " + report.strip().replace("\n", "\n  "))


def check_text_encoder_exports(settings: Settings) -> None:
    """The weights of a small model's training of the text encoder as well, loaded by their own readers."""
    say("both networks of a small model with the exported LoRA: PEFT, diffusers …")
    model, exports = settings.work / "small-model", settings.work / "small-style"
    run([settings.program, "make-base-model", "--directory", model, "--preset", "small"])
    ours(replace(settings, model=model), "train-synthetic", *as_words(TEXT_ENCODER_JOB | {"output": exports}))
    check_exports(model, exports, "--text-encoder")


def compare_exports(settings: Settings) -> dict[str, float]:
    """The weights of that training, loaded by their own readers, against our forward pass with them."""
    work = settings.work
    say("UNet with the exported LoRA: PEFT, diffusers, Brushwork …")
    check_exports(settings.model, work / "style", "--save", work / "loaded.safetensors")
    words = ["--inputs", work / "loaded.safetensors", "--output", work / "ours-lora.safetensors"]
    ours(settings, "forward", *words, "--lora", work / "style" / "peft")
    differences = reference(settings, "compare-lora", work / "ours-lora.safetensors", work / "loaded.safetensors")
    return {f"effect of the LoRA through {name}": value for name, value in differences.items()}


def compare(settings: Settings, pairs: list[tuple[str, str, str, str]]) -> dict[str, float]:
    """The relative difference by name; pairs of (name, our file, their file, key or how keys end)."""
    files = [
        {
            "name": name,
            "ours": str(settings.work / f"{mine}.safetensors"),
            "theirs": str(settings.work / f"{theirs}.safetensors"),
            "suffix": suffix,
        }
        for name, mine, theirs, suffix in pairs
    ]
    return reference(settings, "compare", json.dumps(files))


def print_sides(rows: list[tuple[str, str, str]], mine: dict, theirs: dict) -> None:
    for label, key, unit in rows:
        say(f"  {label:28} Brushwork {mine[key]:9.1f} {unit:3}  reference {theirs[key]:9.1f} {unit}")


def judge(differences: dict[str, float], limits: dict[str, float]) -> list[str]:
    """Prints the table and returns what is above its limit."""
    say(f"\n{'relative difference of':42} {'measured':>10} {'limit':>8}")
    for name, limit in limits.items():
        verdict = "" if differences[name] <= limit else "  too large"
        say(f"{name:42} {differences[name]:10.1e} {limit:8.0e}{verdict}")
    return [name for name, limit in limits.items() if not differences[name] <= limit]


def main() -> None:
    parser = argparse.ArgumentParser(prog="npm run test:fidelity --", description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="base model; made where it is absent")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures of the forward passes, in pixels")
    parser.add_argument("--training-size", type=int, default=128, help="side of the training pictures")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["no", *HALF_LIMITS], default="no")
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM, help="brushwork-native")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the differences and their limits")
    options = parser.parse_args()
    if not (options.model / "model_index.json").exists():
        say("making the base model, 4.1 GiB …")
        run([sys.executable, HERE / "full_size.py", options.model])
    with tempfile.TemporaryDirectory(prefix="brushwork-fidelity-") as work:
        sizes = (options.size, options.training_size)
        place = (options.device, options.precision, options.program)
        settings = Settings(options.model, pathlib.Path(work), options.threads, *sizes, *place)
        limits = settings.limits()
        differences = compare_forward(settings) | compare_training(settings)
        if any(name.startswith("effect") for name in limits):
            differences |= compare_exports(settings)
            check_text_encoder_exports(settings)
    faults = judge(differences, limits)
    if options.json:
        figures = {name: {"measured": differences[name], "limit": limit} for name, limit in limits.items()}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(f"above the limit: {', '.join(faults)}" if faults else None)


if __name__ == "__main__":
    main()
