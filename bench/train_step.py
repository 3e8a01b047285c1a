"""Time of a training step: ours beside diffusers + PEFT, same model directory, same sizes, in turns in one run.

Both train from cached latents and text embeddings with dropout 0.1, batch 1, float32 on the CPU. Prints the median
of each round, and the ratio round by round. See bench/README.md for how to run it.
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


class Reference:
    """The loop that the usual scripts run, without its data loader: what they can reach at best."""

    def __init__(self, model: Path, rank: int, size_px: int):
        unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet")
        unet.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, lora_dropout=0.1, bias="none")
        self.unet = get_peft_model(unet, config).train()
        parameters = [p for p in self.unet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01)
        vae = json.loads((model / "vae" / "config.json").read_text())
        side = size_px // 2 ** (len(vae["block_out_channels"]) - 1)
        self.latents = torch.randn(1, unet.config.in_channels, side, side)
        self.text = torch.randn(1, 77, unet.config.cross_attention_dim)

    def step_ms(self) -> float:
        start = time.perf_counter()
        noise = torch.randn_like(self.latents)
        timesteps = torch.randint(0, 1000, (1,))
        prediction = self.unet(self.latents + noise, timesteps, encoder_hidden_states=self.text).sample
        loss = torch.nn.functional.mse_loss(prediction, noise)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()
        return (time.perf_counter() - start) * 1000


def ours_ms(model: Path, options: argparse.Namespace) -> float:
    sizes = ["--size", options.size, "--rank", options.rank, "--threads", options.threads, "--steps", options.steps]
    command = [PROGRAM, "bench", "--model", model, "--dropout", "0.1", *sizes]
    output = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
    return json.loads(output)["ms_per_step_median"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="base model directory in diffusers layout")
    parser.add_argument("--size", type=int, default=256, help="picture side in pixels")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reference = Reference(options.model, options.rank, options.size)
    for _ in range(5):
        reference.step_ms()
    ratios = []
    for number in range(options.rounds):
        theirs = statistics.median(reference.step_ms() for _ in range(options.steps))
        ours = ours_ms(options.model, options)
        ratios.append(theirs / ours)
        print(f"round {number + 1}: brushwork {ours:.1f} ms, diffusers + PEFT {theirs:.1f} ms, ratio {ratios[-1]:.2f}")
    print(f"ratio: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")
    print(f"torch {torch.__version__}, {options.threads} threads, {os.cpu_count()} cores, {sys.platform}")


if __name__ == "__main__":
    main()
