"""Writes golden/: what diffusers, transformers and PEFT compute on random models. See README.md.

`make_golden.py` writes all of it; `make_golden.py plain clipping` only those trainings.
"""

import json
import pathlib
import sys
from dataclasses import asdict, dataclass, fields

import torch
from safetensors.torch import save_file

from random_model import random_model, write_weight_keys
from recipe import Job, picture, pixels, tokens, train

GOLDEN = pathlib.Path(__file__).parent / "golden"
MODEL_SEED = 7


@dataclass(frozen=True)
class Training:
    """One golden training: base model, pictures and job."""

    job: Job
    preset: str = "tiny"
    image_count: int = 7
    width_px: int = 64
    height_px: int = 64
    # Width and height of the pictures in turn; none: all have the one size above.
    sizes_px: tuple[tuple[int, int], ...] = ()

    def images(self) -> list[torch.Tensor]:
        sizes_px = self.sizes_px or ((self.width_px, self.height_px),)
        sizes_px = [sizes_px[i % len(sizes_px)] for i in range(self.image_count)]
        return [picture(i, height_px, width_px) for i, (width_px, height_px) in enumerate(sizes_px)]


# What came later stands in a file only where it is set, so that older files stay as they are.
LATER_KEYS = {
    "train_text_encoder",
    "text_encoder_learning_rate",
    "dropout",
    "precision",
    "initial_loss_scale",
    "initial_b",
}

SMALL = {"rank": 2, "alpha": 4.0, "epochs": 25, "batch_size": 2}

# About 100 micro-steps each. 7 pictures in batches of 2 are 4 micro-steps an epoch, in batches of 3 they are 3; the last
# one is short. Captions differ in length from picture to picture.
TRAININGS = {
    "plain": Training(Job(seed=1234, rank=4, alpha=8.0, epochs=25, batch_size=2)),
    "batch_of_3": Training(Job(seed=17, rank=8, alpha=32.0, epochs=34, batch_size=3)),
    "accumulating": Training(Job(seed=98, rank=2, alpha=2.0, epochs=34, batch_size=3, gradient_accumulation=2)),
    # Windows of three micro-steps are clipped, the short last one of an epoch is not.
    "clipping": Training(
        Job(seed=99, rank=2, alpha=2.0, epochs=25, batch_size=2, gradient_accumulation=3, max_grad_norm=0.06)
    ),
    "rectangular": Training(Job(seed=3, rank=16, alpha=32.0, epochs=20), image_count=5, width_px=96),
    "v_prediction": Training(
        Job(seed=5, rank=4, alpha=4.0, epochs=34, batch_size=3, prediction_type="v_prediction"),
    ),
    "four_levels": Training(
        Job(seed=8, rank=2, alpha=4.0, epochs=50, batch_size=2), preset="small", image_count=4, width_px=128
    ),
    "constant_after_warmup": Training(Job(**SMALL, seed=21, lr_warmup_steps=30)),
    "linear": Training(Job(**SMALL, seed=22, lr_scheduler="linear", gradient_accumulation=3)),
    "linear_after_warmup": Training(Job(**SMALL, seed=38, lr_scheduler="linear", lr_warmup_steps=10)),
    "cosine": Training(Job(**SMALL, seed=39, lr_scheduler="cosine")),
    "cosine_after_warmup": Training(Job(**SMALL, seed=23, lr_scheduler="cosine", lr_warmup_steps=10)),
    "min_snr": Training(Job(**SMALL, seed=24, min_snr_gamma=5.0)),
    "min_snr_v_prediction": Training(Job(**SMALL, seed=25, min_snr_gamma=1.5, prediction_type="v_prediction")),
    "noise_offset": Training(Job(**SMALL, seed=26, noise_offset=0.05)),
    "lion": Training(Job(**SMALL, seed=27, optimizer="lion", learning_rate=1e-4)),
    "prodigy": Training(Job(**SMALL, seed=28, optimizer="prodigy", learning_rate=1.0, lr_warmup_steps=5)),
    # Reached after 9 of 50 optimizer steps.
    "ema": Training(Job(**SMALL, seed=29, ema_decay=0.5, gradient_accumulation=2)),
    "flip": Training(Job(**SMALL, seed=30, flip=True), width_px=96),
    "caption_dropout": Training(Job(**SMALL, seed=31, caption_dropout=0.4)),
    # 3, 3 and 2 pictures of a size: 5 micro-steps an epoch, where one size would have 4.
    "sizes": Training(
        Job(**{**SMALL, "epochs": 20}, seed=32, gradient_accumulation=3, lr_scheduler="cosine", noise_offset=0.05, flip=True),
        image_count=8,
        sizes_px=((96, 64), (64, 96), (64, 64)),
    ),
    "text_encoder": Training(Job(seed=32, rank=4, alpha=8.0, epochs=25, train_text_encoder=True), image_count=4),
    # With the empty caption among the others, and one norm over both networks.
    "text_encoder_accumulating": Training(
        Job(
            seed=33,
            rank=2,
            alpha=4.0,
            epochs=34,
            batch_size=3,
            gradient_accumulation=2,
            max_grad_norm=0.1,
            caption_dropout=0.3,
            train_text_encoder=True,
        )
    ),
    "text_encoder_rate": Training(
        Job(**SMALL, seed=34, train_text_encoder=True, text_encoder_learning_rate=4e-4, lr_scheduler="linear")
    ),
    # With gradients of A in the first micro-step.
    "initial_b": Training(
        Job(seed=36, rank=4, alpha=8.0, epochs=25, train_text_encoder=True, initial_b=0.05), image_count=4
    ),
    "dropout": Training(Job(**SMALL, seed=32, dropout=0.3)),
    "bf16": Training(Job(**SMALL, seed=33, precision="bf16")),
    # The scale is far too large at first: torch's GradScaler skips until it fits.
    "fp16": Training(
        Job(
            **SMALL,
            seed=34,
            precision="fp16",
            initial_loss_scale=2.0**26,
            gradient_accumulation=2,
            lr_warmup_steps=10,
            ema_decay=0.5,
        )
    ),
    # As jobs may be: three quarters of the steps are clipped, the others have a smaller norm. One overflows after others
    # that did not.
    "fp16_dropout": Training(
        Job(
            **SMALL,
            seed=43,
            precision="fp16",
            initial_loss_scale=2.0**26,
            gradient_accumulation=2,
            dropout=0.1,
            max_grad_norm=0.15,
        )
    ),
}


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def forward_passes(models: dict) -> dict[str, torch.Tensor]:
    """Inputs are drawn from generators seeded 1, 2, ... or made by formulas: the tests draw them too."""
    text = torch.cat([models["text_encoder"](tokens(i)).last_hidden_state for i in range(2)])
    posterior = models["vae"].encode(torch.cat([pixels(picture(i, 32, 48)) for i in range(2)])).latent_dist
    unet = models["unet"]
    return {
        "text_encoder": text,
        "vae.mean": posterior.mean.contiguous(),
        "vae.std": posterior.std.contiguous(),
        "vae.decoded": models["vae"].decode(randn(1, 1, 4, 4, 6)).sample,
        "unet": unet(randn(2, 2, 4, 16, 16), torch.tensor([3, 721]), encoder_hidden_states=text).sample,
        "unet.wide": unet(randn(3, 1, 4, 6, 20), torch.tensor([999]), encoder_hidden_states=text[:1]).sample,
    }


def described(training: Training) -> dict:
    """The training as its record names it, without what came later and is not set."""
    record = {"modelSeed": MODEL_SEED, **asdict(training)}
    if not training.sizes_px:
        del record["sizes_px"]
    defaults = {field.name: field.default for field in fields(Job)}
    record["job"] = {k: v for k, v in record["job"].items() if k not in LATER_KEYS or v != defaults[k]}
    return record


def write_tensors(name: str, result: dict) -> None:
    """Moves the tensors of a training's result into its file."""
    tensors = {f"final.{key}": value for key, value in result.pop("final").items()}
    # Where B starts at zero, no gradient reaches A in the first micro-step. One that overflows says nothing.
    gradients = result.pop("gradients")
    is_finite = all(value.isfinite().all() for value in gradients.values())
    for key, value in gradients.items() if is_finite else ():
        if value.any():
            tensors[f"gradient.{key}"] = value
        else:
            assert "lora_A" in key
    save_file(tensors, GOLDEN / "training" / f"{name}.safetensors")


def write_training(name: str, training: Training) -> None:
    images, captions = training.images(), [tokens(i) for i in range(training.image_count)]
    result = train(random_model(training.preset, MODEL_SEED), training.job, images, captions)
    write_tensors(name, result)
    record = described(training) | result
    if training.job.precision != "fp16":
        del record["loss_scales"]
    (GOLDEN / "training" / f"{name}.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")
    print(name, len(result["losses"]), result["losses"][0], result["losses"][-1], flush=True)


def main(names: list[str]) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    (GOLDEN / "training").mkdir(parents=True, exist_ok=True)
    if not names:
        write_weight_keys(GOLDEN / "weight_keys.json")
        save_file(forward_passes(random_model("tiny", MODEL_SEED)), GOLDEN / "tiny_forward.safetensors")
    for name in names or TRAININGS:
        write_training(name, TRAININGS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
