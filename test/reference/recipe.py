"""The training recipe with diffusers and PEFT: random streams, data and the training loop, float32 on the CPU."""

import math
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear

from random_model import make_scheduler, mix64

LORA_INIT, EPOCH_ORDER, LATENT_SAMPLE, TIMESTEP, NOISE = 1, 2, 3, 4, 5
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def stream(seed: int, number: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix64(mix64(mix64(seed) ^ number) ^ index))


@dataclass(frozen=True)
class Job:
    seed: int
    rank: int
    alpha: float
    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int
    gradient_accumulation: int = 1
    max_grad_norm: float | None = None
    prediction_type: str = "epsilon"


def picture(index: int, height: int, width: int) -> torch.Tensor:
    """Picture `index` of the synthetic data set: uint8 (height, width, 3), by a formula in integers."""
    y, x, c = torch.meshgrid(torch.arange(height), torch.arange(width), torch.arange(3), indexing="ij")
    return ((x * (3 + index) + y * (5 + 2 * c) + (x * y * (1 + index)) // 16 + 31 * index * c) % 256).to(torch.uint8)


def pixels(image: torch.Tensor) -> torch.Tensor:
    """float32 (1, 3, height, width) in [-1, 1]."""
    return (image.to(torch.float32) / 127.5 - 1.0).permute(2, 0, 1).unsqueeze(0).contiguous()


def tokens(index: int) -> torch.Tensor:
    """Caption `index`: int64 (1, 77), begin, 4 + index words, end and padding."""
    words = [(37 * index + 11 * j) % 1000 for j in range(4 + index)]
    return torch.tensor([[1022, *words] + [1023] * (76 - len(words))])


def lora_modules(unet) -> list[tuple[str, LoraLinear]]:
    """The LoRA layers with diffusers' names, sorted by code point: position = ordinal of stream 1."""
    found = {n.removeprefix("base_model.model."): m for n, m in unet.named_modules() if isinstance(m, LoraLinear)}
    return sorted(found.items())


def train(models: dict, job: Job, images: list[torch.Tensor], captions: list[torch.Tensor]) -> dict:
    """Runs the whole job. Returns losses, timesteps, gradients of the first micro-step and the final LoRA."""
    vae, text_encoder = models["vae"], models["text_encoder"]
    scheduler = make_scheduler(job.prediction_type)
    with torch.no_grad():
        posteriors = [vae.encode(pixels(image)).latent_dist for image in images]
        mean = torch.cat([p.mean for p in posteriors])
        std = torch.cat([p.std for p in posteriors])
        text = torch.cat([text_encoder(caption).last_hidden_state for caption in captions])

    config = LoraConfig(r=job.rank, lora_alpha=job.alpha, target_modules=TARGETS, lora_dropout=0.0, bias="none")
    unet = get_peft_model(models["unet"], config)
    modules = lora_modules(unet)
    parameters = []
    for ordinal, (_, module) in enumerate(modules):
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        bound = 1.0 / math.sqrt(a.shape[1])
        with torch.no_grad():
            a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=stream(job.seed, LORA_INIT, ordinal)))
            b.zero_()
        parameters += [a, b]
    optimizer = torch.optim.AdamW(
        parameters, lr=job.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=job.weight_decay
    )

    n = len(images)
    losses, timesteps_of_step, gradients = [], [], {}
    step = 0
    for epoch in range(job.epochs):
        order = torch.randperm(n, generator=stream(job.seed, EPOCH_ORDER, epoch))
        batches = order.split(job.batch_size)
        for position, chosen in enumerate(batches):
            shape = (len(chosen), *mean.shape[1:])
            eps = torch.randn(shape, generator=stream(job.seed, LATENT_SAMPLE, step))
            latent = (mean[chosen] + std[chosen] * eps) * vae.config.scaling_factor
            timesteps = torch.randint(0, 1000, (len(chosen),), generator=stream(job.seed, TIMESTEP, step))
            noise = torch.randn(shape, generator=stream(job.seed, NOISE, step))
            noisy = scheduler.add_noise(latent, noise, timesteps)
            target = noise if job.prediction_type == "epsilon" else scheduler.get_velocity(latent, noise, timesteps)
            prediction = unet(noisy, timesteps, encoder_hidden_states=text[chosen]).sample
            loss = torch.nn.functional.mse_loss(prediction, target)
            (loss / job.gradient_accumulation).backward()
            losses.append(loss.item())
            timesteps_of_step.append(timesteps.tolist())
            if step == 0:
                gradients = {
                    f"{name}.lora_{side}.weight": getattr(module, f"lora_{side}")["default"].weight.grad.clone()
                    for name, module in modules
                    for side in "AB"
                }
            if (position + 1) % job.gradient_accumulation == 0 or position + 1 == len(batches):
                if job.max_grad_norm is not None:
                    torch.nn.utils.clip_grad_norm_(parameters, job.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            step += 1

    final = {
        f"{name}.lora_{side}.weight": getattr(module, f"lora_{side}")["default"].weight.detach().clone()
        for name, module in modules
        for side in "AB"
    }
    unet.unload()
    return {"losses": losses, "timesteps": timesteps_of_step, "gradients": gradients, "final": final}
