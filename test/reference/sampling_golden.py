"""Writes golden/sampling.safetensors: what diffusers' schedulers and its pipeline draw on random models. See README.md.

    .venv/bin/python test/reference/sampling_golden.py
"""

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from make_golden import GOLDEN, MODEL_SEED, randn
from random_model import random_model
from recipe import tokens

# As Stable Diffusion 1.5 configures its scheduler, for every class alike.
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def make_scheduler(sampler: str, prediction_type: str):
    if sampler == "ddim":
        return DDIMScheduler(**NOISE, prediction_type=prediction_type, clip_sample=False, set_alpha_to_one=False)
    return DPMSolverMultistepScheduler(**NOISE, prediction_type=prediction_type, algorithm_type="dpmsolver++")


def walk(sampler: str, prediction_type: str, step_count: int) -> dict[str, torch.Tensor]:
    """The samples after each step when the model says randn(100), randn(101), …; the first sample is randn(1)."""
    scheduler = make_scheduler(sampler, prediction_type)
    scheduler.set_timesteps(step_count)
    sample, samples = randn(1, 1, 4, 2, 3), []
    for i, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.step(randn(100 + i, *sample.shape), timestep, sample).prev_sample
        samples.append(sample)
    name = f"walk.{sampler}.{prediction_type}.{step_count}"
    return {f"{name}.timesteps": scheduler.timesteps, f"{name}.samples": torch.cat(samples)}


def trained_lora() -> dict[str, torch.Tensor]:
    """The LoRA of the golden training `plain`, alpha 8 and rank 4, as a diffusers file without a header holds it."""
    final = load_file(GOLDEN / "training" / "plain.safetensors")
    return {
        key.replace("final.", "unet."): value * 2 if "lora_B" in key else value
        for key, value in final.items()
        if key.startswith("final.")
    }


@torch.no_grad()
def draw(preset: str, sampler: str, seed: int, prediction_type="epsilon", guidance=5.0, lora=False, width_px=64):
    """The decoded pixels, 64 px high, 6 steps, of the prompt tokens(1) and the negative prompt tokens(0)."""
    models = random_model(preset, MODEL_SEED)
    scheduler = make_scheduler(sampler, prediction_type)
    pipeline = StableDiffusionPipeline(
        **models,
        tokenizer=None,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    if lora:
        pipeline.load_lora_weights(trained_lora())
    factor_px = pipeline.vae_scale_factor
    embeds = [models["text_encoder"](tokens(i)).last_hidden_state for i in (1, 0)]
    latents = pipeline(
        prompt_embeds=embeds[0],
        negative_prompt_embeds=embeds[1],
        latents=randn(seed, 1, 4, 64 // factor_px, width_px // factor_px),
        height=64,
        width=width_px,
        num_inference_steps=6,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    return models["vae"].decode(latents / models["vae"].config.scaling_factor).sample


def main() -> None:
    torch.set_num_threads(1)
    golden = {}
    for sampler in ("ddim", "dpm++"):
        for prediction_type in ("epsilon", "v_prediction"):
            # Below and above 15 steps diffusers treats the last ones differently.
            for step_count in (1, 2, 5, 20):
                golden |= walk(sampler, prediction_type, step_count)
    golden["picture.ddim"] = draw("tiny", "ddim", 11)
    golden["picture.dpm++"] = draw("tiny", "dpm++", 12)
    golden["picture.v_prediction"] = draw("tiny", "dpm++", 13, prediction_type="v_prediction")
    golden["picture.unguided"] = draw("tiny", "dpm++", 14, guidance=1.0)
    golden["picture.lora"] = draw("tiny", "dpm++", 15, lora=True)
    golden["picture.four_levels"] = draw("small", "dpm++", 16, width_px=128)
    save_file({key: value.contiguous() for key, value in golden.items()}, GOLDEN / "sampling.safetensors")


if __name__ == "__main__":
    main()
