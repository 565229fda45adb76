"""A policy-gradient loop of one's own (GRPO) with a preference model as the reward.

Each prompt gets a group of pictures; those above the group's mean reward become more likely, those
below less. `finetune` does this with checkpoints, a monitor and several processes; the loop here is
short enough to change.

Run it: python examples/grpo_loop.py
"""

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

import stablepref
from stablepref.assets import PIPELINES

PROMPTS = ["a red circle left of a blue star", "two green squares"]
GROUP = 4
CLIP = 1e-4  # the ratio's bounds, as in ddpo-pytorch


def predictions(pipe: DiffusionPipeline, x: Tensor, time: Tensor, embeds: Tensor) -> list[Tensor]:
    """The clean latents and the noise that the denoiser sees in x."""
    output = pipe.unet(x, time, encoder_hidden_states=embeds).sample
    alpha = pipe.scheduler.alphas_cumprod[time]
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if pipe.scheduler.config.prediction_type == "v_prediction":
        return [signal * x - noise * output, noise * x + signal * output]
    return [(x - noise * output) / signal, output]


def ddim_step(
    pipe: DiffusionPipeline, place: int, x: Tensor, embeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the next latents: DDIM's equation 12 with eta = 1."""
    scheduler = pipe.scheduler
    times = scheduler.timesteps
    clean, noise = predictions(pipe, x, times[place], embeds)
    now = scheduler.alphas_cumprod[times[place]]
    last = place + 1 == len(times)
    after = scheduler.final_alpha_cumprod if last else scheduler.alphas_cumprod[times[place + 1]]
    variance = ((1 - after) / (1 - now) * (1 - now / after)).clamp(min=0)
    mean = after.sqrt() * clean + (1 - after - variance).clamp(min=0).sqrt() * noise
    return mean, variance.sqrt()


def log_density(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Of each picture's step, up to a constant: the mean over its latents."""
    return -((x - mean) ** 2 / (2 * deviation**2)).flatten(1).mean(dim=1)


def main(rounds: int = 3, steps: int = 6) -> None:
    """Train the denoiser's weights for a few rounds."""
    pipe = DiffusionPipeline.from_pretrained(PIPELINES["shapes"])
    scorer = stablepref.load("shapes")
    optimizer = torch.optim.AdamW(pipe.unet.parameters(), lr=1e-5)
    prompts = [prompt for prompt in PROMPTS for _ in range(GROUP)]
    embeds, _ = pipe.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    embeds = embeds.detach()
    shape = (len(prompts), pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    for number in range(rounds):
        pipe.scheduler.set_timesteps(steps)
        latents = [torch.randn(shape, generator=torch.Generator().manual_seed(number))]
        old = []
        with torch.no_grad():
            for place in range(steps):
                mean, deviation = ddim_step(pipe, place, latents[-1], embeds)
                latents.append(mean + deviation * torch.randn_like(mean))
                old.append(log_density(latents[-1], mean, deviation) if deviation else None)
            decoded = pipe.vae.decode(latents[-1] / pipe.vae.config.scaling_factor).sample
            rewards = scorer((decoded / 2 + 0.5).clamp(0, 1), prompts)
        groups = rewards.view(-1, GROUP)
        better = ((groups - groups.mean(dim=1, keepdim=True)) / (groups.std() + 1e-4)).flatten()
        optimizer.zero_grad()
        for place, before in enumerate(old):
            if before is None:  # the last step has no noise, and so no odds
                continue
            mean, deviation = ddim_step(pipe, place, latents[place], embeds)
            ratio = (log_density(latents[place + 1], mean, deviation) - before).exp()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            torch.maximum(-better * ratio, -better * clipped).mean().backward()
        optimizer.step()
        print(f"round {number}: mean reward {rewards.mean():.3f}")


if __name__ == "__main__":
    main()
