"""The training recipe with diffusers and PEFT: random streams, data and the training loop."""

import math
from dataclasses import dataclass

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel, compute_snr
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from prodigyopt import Prodigy

from lora_layers import DropoutMasks, round_to_compute_type, use_masks
from random_model import make_scheduler, mix64

LORA_INIT, EPOCH_ORDER, LATENT_SAMPLE, TIMESTEP, NOISE, DROPOUT, FLIP, CAPTION_DROPOUT, NOISE_OFFSET = range(1, 10)
INITIAL_B = 32  # of the golden files alone
COMPUTE_TYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]  # as examples/dreambooth/train_dreambooth_lora.py has them


def stream(seed: int, number: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix64(mix64(mix64(seed) ^ number) ^ index))


def draw_uniform(shape: torch.Size, bound: float, generator: torch.Generator) -> torch.Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class Job:
    seed: int
    rank: int
    alpha: float
    epochs: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 1
    gradient_accumulation: int = 1
    max_grad_norm: float | None = None
    prediction_type: str = "epsilon"
    optimizer: str = "adamw"
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 0
    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    ema_decay: float | None = None
    flip: bool = False
    caption_dropout: float = 0.0
    train_text_encoder: bool = False
    text_encoder_learning_rate: float | None = None
    dropout: float = 0.0
    precision: str = "no"
    initial_loss_scale: float = 65536.0  # fp16 only
    # B starts uniform up to this, where the recipe has 0, which lets no gradient reach A in the first micro-step.
    initial_b: float = 0.0


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675."""

    def __init__(self, params, lr: float, weight_decay: float, betas=(0.9, 0.99)):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("exp_avg", torch.zeros_like(parameter))
                update = torch.sign(beta1 * momentum + (1 - beta1) * parameter.grad)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)
                momentum.mul_(beta2).add_((1 - beta2) * parameter.grad)


def make_optimizer(job: Job, parameters: list) -> torch.optim.Optimizer:
    if job.optimizer == "lion":
        return Lion(parameters, lr=job.learning_rate, weight_decay=job.weight_decay)
    if job.optimizer == "prodigy":
        # As examples/advanced_diffusion_training of diffusers sets it up.
        return Prodigy(
            parameters,
            lr=job.learning_rate,
            betas=(0.9, 0.999),
            weight_decay=job.weight_decay,
            decouple=True,
            use_bias_correction=True,
            safeguard_warmup=True,
        )
    return torch.optim.AdamW(
        parameters, lr=job.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=job.weight_decay
    )


def make_lr_scheduler(job: Job, optimizer: torch.optim.Optimizer, micro_steps_per_epoch: int):
    # A constant rate after a warm-up has a name of its own there.
    name = "constant_with_warmup" if job.lr_scheduler == "constant" else job.lr_scheduler
    steps_per_epoch = math.ceil(micro_steps_per_epoch / job.gradient_accumulation)
    return get_scheduler(
        name, optimizer, num_warmup_steps=job.lr_warmup_steps, num_training_steps=job.epochs * steps_per_epoch
    )


def loss_of(prediction: torch.Tensor, target: torch.Tensor, timesteps: torch.Tensor, scheduler, job: Job):
    """As in examples/text_to_image/train_text_to_image_lora.py of diffusers 0.42.1."""
    if job.min_snr_gamma is None:
        return torch.nn.functional.mse_loss(prediction, target)
    snr = compute_snr(scheduler, timesteps)
    weights = torch.stack([snr, job.min_snr_gamma * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
    weights = weights / (snr if job.prediction_type == "epsilon" else snr + 1)
    loss = torch.nn.functional.mse_loss(prediction, target, reduction="none")
    return (loss.mean(dim=list(range(1, len(loss.shape)))) * weights).mean()


def picture(index: int, height: int, width: int) -> torch.Tensor:
    """Picture `index` of the synthetic data set: uint8 (height, width, 3), by a formula in integers."""
    y, x, c = torch.meshgrid(torch.arange(height), torch.arange(width), torch.arange(3), indexing="ij")
    return ((x * (3 + index) + y * (5 + 2 * c) + (x * y * (1 + index)) // 16 + 31 * index * c) % 256).to(torch.uint8)


def pixels(image: torch.Tensor) -> torch.Tensor:
    """float32 (1, 3, height, width) in [-1, 1]."""
    return (image.to(torch.float32) / 127.5 - 1.0).permute(2, 0, 1).unsqueeze(0).contiguous()


def caption(words: list[int]) -> torch.Tensor:
    """int64 (1, 77): begin, words, end and padding."""
    return torch.tensor([[1022, *words] + [1023] * (76 - len(words))])


def tokens(index: int) -> torch.Tensor:
    """Caption `index`, of 4 + index words."""
    return caption([(37 * index + 11 * j) % 1000 for j in range(4 + index)])


def epoch_batches(order: torch.Tensor, sizes: list[tuple[int, int]], batch_size: int) -> list[torch.Tensor]:
    """Pictures of one size in each batch: as soon as there are enough of it, and at the end what is left, by size."""
    batches, waiting = [], {size: [] for size in sorted(set(sizes))}
    for image in order.tolist():
        waiting[sizes[image]].append(image)
        if len(waiting[sizes[image]]) == batch_size:
            batches.append(waiting[sizes[image]])
            waiting[sizes[image]] = []
    return [torch.tensor(batch) for batch in batches + [rest for rest in waiting.values() if rest]]


def lora_modules(model, prefix: str = "") -> list[tuple[str, LoraLinear]]:
    """The LoRA layers with diffusers' names, sorted by code point: position = ordinal of stream 1."""
    found = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if isinstance(m, LoraLinear)}
    return sorted((prefix + name.removeprefix(prefix), module) for name, module in found.items())


def add_lora(model: torch.nn.Module, job: Job, targets: list[str]):
    return get_peft_model(
        model, LoraConfig(r=job.rank, lora_alpha=job.alpha, target_modules=targets, lora_dropout=0.0, bias="none")
    )


def train(
    models: dict,
    job: Job,
    images: list[torch.Tensor],
    captions: list[torch.Tensor],
    between_epochs=lambda epoch, unet: None,
) -> dict:
    """Runs the whole job, on the device of the models.

    `between_epochs` is called before the first epoch and after each with the number of epochs run and the UNet with the
    LoRA, or its average where there is one. Returns losses, timesteps, learning rates and loss scales,
    gradients of the first micro-step (times the loss scale), and the final LoRA or its average.
    """
    vae, text_encoder = models["vae"], models["text_encoder"]
    device = vae.device
    scheduler = make_scheduler(job.prediction_type)
    with torch.no_grad():
        # The mirrored pictures after the others.
        mirrored = [image.flip(1) for image in images] if job.flip else []
        posteriors = [vae.encode(pixels(image).to(device)).latent_dist for image in images + mirrored]
        token_ids = torch.cat([*captions, caption([])]).to(device)
        text = torch.cat([text_encoder(ids).last_hidden_state for ids in token_ids.split(1)])

    compute_type = COMPUTE_TYPES[job.precision]
    unet = models["unet"] if job.precision == "no" else models["unet"].to(compute_type)
    unet = add_lora(unet, job, TARGETS)
    text = text.to(compute_type)
    modules = lora_modules(unet)
    # Masks and rounding are defined here for the UNet alone: no training of the text encoder uses them.
    assert not job.train_text_encoder or (job.dropout == 0 and job.precision == "no")
    masks = DropoutMasks(modules, job.dropout)
    if job.precision != "no":
        round_to_compute_type(modules, masks)
    elif job.dropout > 0:
        use_masks(modules, masks)
    unet_count = 2 * len(modules)
    if job.train_text_encoder:
        text_encoder = add_lora(text_encoder, job, TEXT_TARGETS)
        # The text encoder's ordinals follow the UNet's. transformers 5 leaves the prefix out in memory.
        modules += lora_modules(text_encoder, "text_model.")
    parameters = []
    for ordinal, (_, module) in enumerate(modules):
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        with torch.no_grad():
            a.copy_(draw_uniform(a.shape, 1.0 / math.sqrt(a.shape[1]), stream(job.seed, LORA_INIT, ordinal)))
            b.copy_(draw_uniform(b.shape, job.initial_b, stream(job.seed, INITIAL_B, ordinal)))
        parameters += [a, b]
    scaler = torch.amp.GradScaler(device.type, init_scale=job.initial_loss_scale, enabled=job.precision == "fp16")
    n = len(images)
    sizes = [(image.shape[1], image.shape[0]) for image in images]
    micro_steps_per_epoch = sum(math.ceil(sizes.count(size) / job.batch_size) for size in set(sizes))
    groups = [{"params": parameters[:unet_count]}]
    if job.train_text_encoder:
        rate = job.text_encoder_learning_rate or job.learning_rate
        groups.append({"params": parameters[unet_count:], "lr": rate})
    optimizer = make_optimizer(job, groups)
    lr_scheduler = make_lr_scheduler(job, optimizer, micro_steps_per_epoch)
    ema = None if job.ema_decay is None else EMAModel(parameters, decay=job.ema_decay)
    losses, timesteps_of_step, learning_rates, loss_scales, gradients = [], [], [], [], {}
    step = 0

    def pause(epoch: int) -> None:
        if ema is not None:
            ema.store(parameters)
            ema.copy_to(parameters)
        between_epochs(epoch, unet)
        if ema is not None:
            ema.restore(parameters)

    pause(0)
    for epoch in range(job.epochs):
        order = torch.randperm(n, generator=stream(job.seed, EPOCH_ORDER, epoch))
        batches = epoch_batches(order, sizes, job.batch_size)
        assert len(batches) == micro_steps_per_epoch
        for position, chosen in enumerate(batches):
            rows, captions_of_rows = chosen, chosen
            if job.flip:
                rows = rows + n * (torch.rand(len(chosen), generator=stream(job.seed, FLIP, step)) < 0.5)
            if job.caption_dropout > 0:
                dropped = torch.rand(len(chosen), generator=stream(job.seed, CAPTION_DROPOUT, step))
                captions_of_rows = torch.where(dropped < job.caption_dropout, n, chosen)
            mean = torch.cat([posteriors[row].mean for row in rows])
            std = torch.cat([posteriors[row].std for row in rows])
            shape = mean.shape
            eps = torch.randn(shape, generator=stream(job.seed, LATENT_SAMPLE, step)).to(device)
            latent = (mean + std * eps) * vae.config.scaling_factor
            timesteps = torch.randint(0, 1000, (len(chosen),), generator=stream(job.seed, TIMESTEP, step)).to(device)
            noise = torch.randn(shape, generator=stream(job.seed, NOISE, step))
            if job.noise_offset > 0:
                offset = torch.randn((*shape[:2], 1, 1), generator=stream(job.seed, NOISE_OFFSET, step))
                noise += job.noise_offset * offset
            noise = noise.to(device)
            noisy = scheduler.add_noise(latent, noise, timesteps)
            target = noise if job.prediction_type == "epsilon" else scheduler.get_velocity(latent, noise, timesteps)
            if job.train_text_encoder:
                states = text_encoder(token_ids[captions_of_rows]).last_hidden_state
            else:
                states = text[captions_of_rows]
            if job.dropout > 0:
                masks.start_step(stream(job.seed, DROPOUT, step), states)
            prediction = unet(noisy.to(compute_type), timesteps, encoder_hidden_states=states).sample
            loss = loss_of(prediction.float(), target, timesteps, scheduler, job)
            loss_scales.append(scaler.get_scale())
            scaler.scale(loss / job.gradient_accumulation).backward()
            losses.append(loss.item())
            timesteps_of_step.append(timesteps.tolist())
            group = optimizer.param_groups[0]
            # Prodigy multiplies it by its estimate d.
            learning_rates.append(group["lr"] * group.get("d", 1.0))
            if step == 0:
                gradients = {
                    f"{name}.lora_{side}.weight": getattr(module, f"lora_{side}")["default"].weight.grad.cpu().clone()
                    for name, module in modules
                    for side in "AB"
                }
            if (position + 1) % job.gradient_accumulation == 0 or position + 1 == len(batches):
                scaler.unscale_(optimizer)
                if job.max_grad_norm is not None:
                    torch.nn.utils.clip_grad_norm_(parameters, job.max_grad_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                # A smaller scale means a skipped step, of which schedule and average hear nothing either.
                if scaler.get_scale() >= loss_scales[-1]:
                    lr_scheduler.step()
                    if ema is not None:
                        ema.step(parameters)
            step += 1
        pause(epoch + 1)

    if ema is not None:
        ema.copy_to(parameters)
    final = {
        f"{name}.lora_{side}.weight": getattr(module, f"lora_{side}")["default"].weight.detach().cpu().clone()
        for name, module in modules
        for side in "AB"
    }
    unet.unload()
    if job.train_text_encoder:
        text_encoder.unload()
    return {
        "losses": losses,
        "timesteps": timesteps_of_step,
        "learning_rates": learning_rates,
        "loss_scales": loss_scales,
        "gradients": gradients,
        "final": final,
    }
