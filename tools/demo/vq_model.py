"""The picture tokenizer in training: stock Chameleon encoder, mmgen's decoder, a codebook moved by averages.

Tensor names are those of the checkpoint below `model.vqmodel.`. Knows nothing of scenes or of text.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from mmgen.decoding.vq import VQDecoder

N_CODES = 1024
DECAY = 0.99  # of the codebook's moving averages (van den Oord et al., arXiv 1711.00937, appendix A.1)
DEAD_BELOW = 0.05  # mean uses a batch under which a code is moved elsewhere


def vq_config(base: int = 64, multiplier: tuple[int, ...] = (1, 1, 1, 1), n_blocks: int = 0) -> ChameleonVQVAEConfig:
    """Return the shape of the built-in model's VQ: 96x96 pixels to 12x12 codes.

    64 channels at full size, not 32: GroupNorm has 32 groups, and one channel a group would forget flat colours.
    """
    return ChameleonVQVAEConfig(
        resolution=96, base_channels=base, channel_multiplier=list(multiplier), num_res_blocks=n_blocks,
        attn_resolutions=[], embed_dim=32, latent_channels=32, num_embeddings=N_CODES,
    )  # fmt: skip


class VQ(ChameleonVQVAE):
    """ChameleonVQVAE with the decoder that transformers lacks."""

    def __init__(self, config: ChameleonVQVAEConfig) -> None:
        super().__init__(config)
        self.decoder = VQDecoder(config)

    def latents(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [-1, 1] -> latents [B, z, h, w] before the codebook."""
        return self.quant_conv(self.encoder(pixels))

    def codes(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [-1, 1] -> codes [B, h, w] int64."""
        z = self.latents(pixels)
        return nearest(rows(z), self.quantize.embedding.weight).view(z.shape[0], *z.shape[2:])

    def pixels(self, z: Tensor) -> Tensor:
        """Latents [B, z, h, w] -> pixels [B, 3, H, W]."""
        return self.decoder(self.post_quant_conv(z))

    def pixels_of(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] -> pixels [B, 3, H, W]."""
        return self.pixels(self.quantize.embedding(codes).permute(0, 3, 1, 2))


def rows(z: Tensor) -> Tensor:
    """Latents [B, z, h, w] -> [B*h*w, z]."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Vectors [N, z], codebook [K, z] -> index of the nearest row [N]."""
    return torch.argmin((codebook**2).sum(1) - 2 * vectors @ codebook.T, dim=1)


def distances(vectors: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
    """Squared distance [N] of each vector to its code."""
    return ((vectors - codebook[codes]) ** 2).sum(1)


def k_means(vectors: Tensor, n_codes: int, n_rounds: int, generator: torch.Generator) -> Tensor:
    """Vectors [N, z] -> centres [K, z]; empty ones move to vectors far from their centre."""
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:n_codes]].clone()
    for _ in range(n_rounds):
        codes = nearest(vectors, centres)
        counts = torch.bincount(codes, minlength=n_codes).float()
        sums = torch.zeros_like(centres).index_add_(0, codes, vectors)
        empty = counts == 0
        far = torch.multinomial(distances(vectors, centres, codes) + 1e-9, int(empty.sum()) + 1, generator=generator)
        centres = torch.where(empty[:, None], centres, sums / counts.clamp(min=1)[:, None])
        centres[empty] = vectors[far[: int(empty.sum())]]
    return centres


class MovingCodebook(nn.Module):
    """Moves the codebook towards the mean of the latents that chose each code, and revives dead codes."""

    counts: Tensor
    sums: Tensor

    def __init__(self, n_codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.ones(n_codes))
        self.register_buffer("sums", torch.zeros(n_codes, width))

    @torch.no_grad()
    def start(self, codebook: Tensor, centres: Tensor) -> None:
        """Set the codebook [K, z] to these centres."""
        codebook.copy_(centres)
        self.counts.fill_(1.0)
        self.sums.copy_(centres)

    @torch.no_grad()
    def update(self, codebook: Tensor, vectors: Tensor, codes: Tensor) -> None:
        """Take in one batch: vectors [N, z] and the codes [N] they chose."""
        self.counts.lerp_(torch.bincount(codes, minlength=len(codebook)).float(), 1 - DECAY)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes, vectors), 1 - DECAY)
        codebook.copy_(self.sums / self.counts.clamp(min=1e-4)[:, None])

    @torch.no_grad()
    def revive(self, codebook: Tensor, vectors: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Move rarely used codes onto vectors that the codebook serves badly; return how many moved."""
        dead = (self.counts < DEAD_BELOW).nonzero().flatten()
        if len(dead):
            spread = distances(vectors, codebook, codes) + 1e-9
            chosen = vectors[torch.multinomial(spread, len(dead), generator=generator)]
            codebook[dead], self.sums[dead], self.counts[dead] = chosen, chosen, 1.0
        return len(dead)


def straight_through(z: Tensor, codebook: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Latents [B, z, h, w] -> (quantized latents with the gradient of z, commitment loss)."""
    quantized = F.embedding(codes, codebook).view(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2)
    return z + (quantized - z).detach(), F.mse_loss(z, quantized.detach())
