"""Writes golden/training/validation*: losses on held-out pictures over trainings with diffusers and PEFT.

`validation_golden.py` writes all of them; `validation_golden.py validation_sizes` only that one.
"""

import json
import sys

import torch

from make_golden import GOLDEN, MODEL_SEED, SMALL, Training, described, write_tensors
from random_model import make_scheduler, mix64, random_model
from recipe import Job, pixels, stream, tokens, train

HELD_OUT, LATENT_SAMPLE, NOISE = 16, 17, 18
# The middles of eight equal parts of 0 ... 1000.
TIMESTEPS = [62, 187, 312, 437, 562, 687, 812, 937]

# Two pictures of each are held out.
TRAININGS = {
    "validation": Training(Job(**{**SMALL, "epochs": 6}, seed=41)),
    "validation_v_prediction": Training(
        Job(**{**SMALL, "epochs": 6}, seed=42, prediction_type="v_prediction", ema_decay=0.9), width_px=96
    ),
    # The text encoder's LoRA counts when captions of held-out pictures are read; so does its average.
    "validation_text_encoder": Training(
        Job(
            **{**SMALL, "epochs": 8},
            seed=43,
            gradient_accumulation=2,
            ema_decay=0.9,
            train_text_encoder=True,
            text_encoder_learning_rate=4e-4,
        )
    ),
    # One wide and one high picture are held out; wide, high and square ones are trained on.
    "validation_sizes": Training(
        Job(**{**SMALL, "epochs": 8}, seed=47, gradient_accumulation=3, flip=True),
        image_count=10,
        sizes_px=((96, 64), (64, 96), (64, 64)),
    ),
}
# The first two have nothing but losses in their files; the training itself is that of other golden files.
WITH_TENSORS = {"validation_text_encoder", "validation_sizes"}
HELD_OUT_COUNT = 2


def held_out(seed: int, image_count: int) -> list[int]:
    """Ordinals of the pictures whose seeds are the smallest, ascending."""
    seeds = [mix64(mix64(mix64(seed) ^ HELD_OUT) ^ i) for i in range(image_count)]
    return sorted(sorted(range(image_count), key=lambda i: seeds[i])[:HELD_OUT_COUNT])


@torch.no_grad()
def validation_loss(unet, models: dict, job: Job, images: list[torch.Tensor], captions: list[torch.Tensor]) -> float:
    scheduler = make_scheduler(job.prediction_type)
    timesteps = torch.tensor(TIMESTEPS)
    losses = []
    for i, (image, ids) in enumerate(zip(images, captions)):
        posterior = models["vae"].encode(pixels(image)).latent_dist
        shape = (len(TIMESTEPS), *posterior.mean.shape[1:])
        eps = torch.randn(shape, generator=stream(job.seed, LATENT_SAMPLE, i))
        noise = torch.randn(shape, generator=stream(job.seed, NOISE, i))
        latent = (posterior.mean + posterior.std * eps) * models["vae"].config.scaling_factor
        noisy = scheduler.add_noise(latent, noise, timesteps)
        target = noise if job.prediction_type == "epsilon" else scheduler.get_velocity(latent, noise, timesteps)
        text = models["text_encoder"](ids).last_hidden_state.expand(len(TIMESTEPS), -1, -1)
        prediction = unet(noisy, timesteps, encoder_hidden_states=text).sample
        losses += [torch.nn.functional.mse_loss(p, t).item() for p, t in zip(prediction, target)]
    return sum(losses) / len(losses)


def write(name: str, training: Training) -> None:
    job, count = training.job, training.image_count
    chosen = held_out(job.seed, count)
    kept = [i for i in range(count) if i not in chosen]
    images = training.images()
    captions = [tokens(i) for i in range(count)]
    models = random_model(training.preset, MODEL_SEED)
    measured = []

    def measure(epoch: int, unet) -> None:
        loss = validation_loss(unet, models, job, [images[i] for i in chosen], [captions[i] for i in chosen])
        measured.append({"epoch": epoch, "loss": loss})

    result = train(models, job, [images[i] for i in kept], [captions[i] for i in kept], measure)
    record = {**described(training), "held_out": chosen, "losses": result["losses"]}
    if name in WITH_TENSORS:
        write_tensors(name, result)
        record |= {"timesteps": result["timesteps"], "learning_rates": result["learning_rates"]}
    text = json.dumps({**record, "validation": measured}, separators=(",", ":"))
    (GOLDEN / "training" / f"{name}.json").write_text(text + "\n")
    print(name, chosen, [each["loss"] for each in measured], flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in sys.argv[1:] or TRAININGS:
        write(name, TRAININGS[name])
