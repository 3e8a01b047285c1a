"""Writes golden/: what diffusers, transformers and PEFT compute on the tiny random model. See README.md."""

import json
import pathlib
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from random_model import random_model, write_weight_keys
from recipe import Job, picture, pixels, tokens, train

GOLDEN = pathlib.Path(__file__).parent / "golden"
MODEL_SEED = 7
SIDE_PX = 64
IMAGE_COUNT = 7

# 7 pictures in batches of 2 are 4 micro-steps an epoch, the last of them short.
JOBS = {
    "plain": Job(seed=1234, rank=4, alpha=8.0, learning_rate=1e-3, weight_decay=0.01, epochs=25, batch_size=2),
    "accumulating": Job(
        seed=99,
        rank=2,
        alpha=2.0,
        learning_rate=1e-3,
        weight_decay=0.01,
        epochs=3,
        batch_size=2,
        gradient_accumulation=3,
        max_grad_norm=0.01,
    ),
    "v_prediction": Job(
        seed=5,
        rank=4,
        alpha=4.0,
        learning_rate=1e-3,
        weight_decay=0.01,
        epochs=3,
        batch_size=3,
        prediction_type="v_prediction",
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


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    write_weight_keys(GOLDEN / "weight_keys.json")
    save_file(forward_passes(random_model("tiny", MODEL_SEED)), GOLDEN / "tiny_forward.safetensors")

    images = [picture(i, SIDE_PX, SIDE_PX) for i in range(IMAGE_COUNT)]
    captions = [tokens(i) for i in range(IMAGE_COUNT)]
    runs = {}
    for name, job in JOBS.items():
        result = train(random_model("tiny", MODEL_SEED), job, images, captions)
        runs[name] = {"job": asdict(job), "losses": result["losses"], "timesteps": result["timesteps"]}
        if name == "plain":
            save_file(result["gradients"], GOLDEN / "tiny_first_gradients.safetensors")
            save_file(result["final"], GOLDEN / "tiny_final_lora.safetensors")
        print(name, result["losses"][0], result["losses"][-1])
    header = {"modelSeed": MODEL_SEED, "imageCount": IMAGE_COUNT, "sidePx": SIDE_PX, "runs": runs}
    (GOLDEN / "tiny_training.json").write_text(json.dumps(header, indent=1) + "\n")


if __name__ == "__main__":
    main()
