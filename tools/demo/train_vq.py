"""Train the VQ: plain autoencoder, k-means codebook, then straight-through with a moving codebook; resumable."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .dataset import Pictures, load_dataset
from .vq_model import DEAD_BELOW, N_CODES, VQ, MovingCodebook, k_means, nearest, rows, straight_through, vq_config


@dataclass(frozen=True)
class VQTraining:
    """How the VQ is trained."""

    n_steps: int = 3400
    n_plain_steps: int = 200  # without codebook
    batch: int = 8
    rate: float = 1.2e-3
    commitment: float = 0.25
    subject_weight: float = 4.0  # of a pixel on the subject, 1 elsewhere
    revive_every: int = 20
    average: float = 0.998  # of the weights that are kept
    n_refining_steps: int = 300  # of the decoder alone, once the codes are final
    seed: int = 1


def rate_at(step: int, options: VQTraining) -> float:
    """Short warm-up, then a cosine to nearly nothing."""
    done = step / options.n_steps
    return options.rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def picture_loss(made: Tensor, true: Tensor, mask: Tensor, subject_weight: float) -> Tensor:
    """Absolute error, error of neighbouring differences, and mean colour of the subject.

    made, true [B, 3, H, W] in [-1, 1]; mask [B, 1, H, W] in [0, 1].
    """
    weight = 1 + (subject_weight - 1) * mask
    weight = weight / weight.mean()
    error = made - true
    plain = (weight * error.abs()).mean()
    across = (weight[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    down = (weight[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    coarse = (F.avg_pool2d(weight, 4) * F.avg_pool2d(error, 4).abs()).mean()
    area = mask.sum((2, 3)).clamp(min=1)
    colour = ((error * mask).sum((2, 3)) / area).abs().mean()
    return plain + 0.5 * (across + down) + 0.5 * coarse + 0.3 * colour


def encoder_input(pixels: Tensor) -> Tensor:
    """Pixels [B, H, W, 3] uint8 -> [B, 3, H, W] as ChameleonImageProcessor makes them (its factor is 0.0078)."""
    return (pixels.float() * 0.0078 - 1).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def decoder_target(pixels: Tensor) -> Tensor:
    """Pixels [B, H, W, 3] uint8 -> [B, 3, H, W] in [-1, 1], half a step up since to_uint8 truncates."""
    return ((pixels.float() + 0.5) / 127.5 - 1).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def batch_of(pictures: Pictures, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return pixels [B, H, W, 3] uint8 and masks [B, 1, H, W] in [0, 1]."""
    return torch.from_numpy(pictures.pixels[indices]), torch.from_numpy(pictures.masks[indices])[:, None].float() / 255


def train_vq(data: Path, out: Path, options: VQTraining) -> None:
    """Train to n_steps; `out` holds everything needed to resume, and the averaged weights."""
    torch.manual_seed(options.seed)
    pictures, model = load_dataset(data), VQ(vq_config())
    book = MovingCodebook(N_CODES, model.config.embed_dim)
    codebook = model.quantize.embedding.weight.requires_grad_(False)
    model.to(memory_format=torch.channels_last).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)
    averages = {name: t.detach().clone() for name, t in model.state_dict().items()}
    step = 0
    if out.exists():
        saved = torch.load(out, weights_only=True)
        model.load_state_dict(saved["model"])
        book.load_state_dict(saved["book"])
        optimizer.load_state_dict(saved["optimizer"])
        averages, step = saved["averages"], saved["step"]
    started, seen = time.monotonic(), []
    while step < options.n_steps:
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        indices = torch.randint(len(pictures.scenes), (options.batch,), generator=generator).sort().values.numpy()
        pixels, mask = batch_of(pictures, indices)
        if step == options.n_plain_steps:
            with torch.no_grad():
                first = [batch_of(pictures, np.arange(i, i + 100))[0] for i in range(0, 800, 100)]
                vectors = torch.cat([rows(model.latents(encoder_input(some))) for some in first])
            book.start(codebook, k_means(vectors, N_CODES, 12, generator))
        z = model.latents(encoder_input(pixels))
        commitment = torch.zeros(())
        if step >= options.n_plain_steps:
            vectors = rows(z.detach())
            codes = nearest(vectors, codebook)
            z, commitment = straight_through(z, codebook, codes)
            book.update(codebook, vectors, codes)
            if step % options.revive_every == 0 and step < 0.8 * options.n_steps:
                book.revive(codebook, vectors, codes, generator)
        loss = picture_loss(model.pixels(z), decoder_target(pixels), mask, options.subject_weight)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, options)
        optimizer.zero_grad(set_to_none=True)
        (loss + options.commitment * commitment).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        keep = min(options.average, step / (step + 10))
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                averages[name].lerp_(tensor, 0 if "quantize" in name else 1 - keep)
        averages["quantize.embedding.weight"].copy_(codebook)
        seen.append(loss.item())
        if step % 50 == 0:
            used, seconds = int((book.counts > DEAD_BELOW).sum()), time.monotonic() - started
            print(f"vq {step} loss {np.mean(seen[-50:]):.4f} codes used {used} {seconds:.0f}s", flush=True)
        if step % 100 == 0 or step == options.n_steps:
            state = {"model": model.state_dict(), "book": book.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "averages": averages, "step": step}, out.with_suffix(".tmp"))
            out.with_suffix(".tmp").replace(out)


def refine_decoder(vq: VQ, data: Path, codes: np.ndarray, options: VQTraining) -> None:
    """Train the decoder on, with codebook and codes as they will be stored; codes [N, 144] of the first N pictures."""
    pictures, side = load_dataset(data), int(codes.shape[1] ** 0.5)
    vq.requires_grad_(False)
    weights = [*vq.decoder.requires_grad_(True).parameters(), *vq.post_quant_conv.requires_grad_(True).parameters()]
    vq.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(weights, lr=options.rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)
    seen = []
    for step in range(options.n_refining_steps):
        generator = torch.Generator().manual_seed(options.seed * 2_000_003 + step)
        indices = torch.randint(len(codes), (options.batch,), generator=generator).sort().values.numpy()
        pixels, mask = batch_of(pictures, indices)
        made = vq.pixels_of(torch.from_numpy(codes[indices].astype(np.int64)).view(-1, side, side))
        loss = picture_loss(made, decoder_target(pixels), mask, options.subject_weight)
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * options.rate * min(1.0, (step + 1) / 50) * (1 - step / options.n_refining_steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        seen.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"decoder {step + 1} loss {np.mean(seen[-50:]):.4f}", flush=True)
