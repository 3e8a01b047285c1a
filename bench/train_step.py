"""Time of a training step: ours beside diffusers + PEFT, same model directory, same sizes, in turns in one run.

Both train from cached latents and text embeddings with dropout 0.1. Prints the median of each round, and the ratio
round by round. See bench/README.md for how to run it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Threads that spin while they wait slow down whatever runs beside them; the service sets the same.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model

PROGRAM = Path(__file__).parents[1] / "build" / "brushwork-native"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
COMPUTE_TYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Ours as the service trains, with kernels that need not give the same bits each time, and with less memory.
VARIANTS = {"plain": [], "fastest": ["--kernels", "fastest"], "checkpointing": ["--gradient-checkpointing", 1]}
WARMUP_STEPS = 5


class Reference:
    """The loop that the usual scripts run, without its data loader: what they can reach at best.

    In half precision the frozen weights are of that type, and the LoRA's float32 ones are cast by autocast. On a GPU:
    channels last, a fused optimizer, cuDNN's fastest algorithms; float32 is not rounded to TF32, as ours is not.
    """

    def __init__(self, options: argparse.Namespace):
        self.device = torch.device(options.device)
        self.type = COMPUTE_TYPES[options.precision]
        on_gpu = self.device.type == "cuda"
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        unet = UNet2DConditionModel.from_pretrained(options.model, subfolder="unet", torch_dtype=self.type).to(self.device)
        unet.requires_grad_(False)
        if on_gpu:
            unet = unet.to(memory_format=torch.channels_last)
        rank = options.rank
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, lora_dropout=0.1, bias="none")
        self.unet = get_peft_model(unet, config).train()
        parameters = [p for p in self.unet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=on_gpu)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        vae = json.loads((options.model / "vae" / "config.json").read_text())
        side = options.size // 2 ** (len(vae["block_out_channels"]) - 1)
        self.latents = torch.randn(options.batch, unet.config.in_channels, side, side, device=self.device)
        self.text = torch.randn(options.batch, 77, unet.config.cross_attention_dim).to(self.device, self.type)
        if options.compile:
            self.unet = torch.compile(self.unet)

    def step_ms(self) -> float:
        start = time.perf_counter()
        noise = torch.randn_like(self.latents)
        timesteps = torch.randint(0, 1000, (len(noise),), device=self.device)
        with torch.autocast(self.device.type, self.type, enabled=self.type != torch.float32):
            noisy = (self.latents + noise).to(self.type)
            prediction = self.unet(noisy, timesteps, encoder_hidden_states=self.text).sample
        loss = torch.nn.functional.mse_loss(prediction.float(), noise)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        loss.item()
        return (time.perf_counter() - start) * 1000

    def peak_gpu_mib(self) -> float | None:
        """Since the first step; without the VAE and the text encoder, which ours keeps."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else None


def ours(options: argparse.Namespace, variant: str) -> dict:
    """What `brushwork-native bench` prints."""
    names = ["model", "size", "rank", "steps", "device", "precision", "batch"]
    words = [word for name in names for word in (f"--{name}", getattr(options, name))]
    words += ["--threads", options.threads, "--images", max(4, options.batch), "--dropout", "0.1"]
    command = [options.program, "bench", "--warmup", WARMUP_STEPS, *words, *VARIANTS[variant]]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def measure(options: argparse.Namespace) -> dict:
    """Times of every round in ms by side, and what was measured once."""
    reference = Reference(options)
    start = time.perf_counter()
    reference.step_ms()
    first_step_s = time.perf_counter() - start
    for _ in range(WARMUP_STEPS):
        reference.step_ms()
    times = {name: [] for name in ["reference", *options.variants]}
    last = {}
    for number in range(options.rounds):
        times["reference"].append(statistics.median(reference.step_ms() for _ in range(options.steps)))
        for variant in options.variants:
            last[variant] = ours(options, variant)
            times[variant].append(last[variant]["ms_per_step_median"])
        sides = ", ".join(f"{name} {rounds[-1]:.1f} ms" for name, rounds in times.items())
        print(f"round {number + 1}: {sides}", flush=True)
    return {
        "ms_per_step": times,
        "reference_first_step_s": first_step_s,
        "reference_peak_gpu_mib": reference.peak_gpu_mib(),
        "brushwork": last,
    }


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="base model directory in diffusers layout")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=COMPUTE_TYPES, default="no")
    parser.add_argument("--size", type=int, default=256, help="picture side in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["plain"], help="of ours")
    parser.add_argument("--compile", action="store_true", help="the reference by torch.compile")
    parser.add_argument("--program", type=Path, default=PROGRAM, help="brushwork-native")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    figures = measure(options)
    times = figures["ms_per_step"]
    figures["ratio"] = {}
    for variant in options.variants:
        ratios = [theirs / mine for theirs, mine in zip(times["reference"], times[variant])]
        figures["ratio"][variant] = ratios
        label = "" if options.variants == ["plain"] else f" {variant}"
        print(f"ratio{label}: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")
    place = torch.cuda.get_device_name() if options.device == "cuda" else f"{os.cpu_count()} cores"
    print(f"torch {torch.__version__}, {options.threads} threads, {place}, {sys.platform}")
    if options.json:
        asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        options.json.write_text(json.dumps({"options": asked, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
