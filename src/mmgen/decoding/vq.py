"""VQGAN decoder: codes to pixels. Knows nothing of tokens.

Esser et al., "Taming Transformers", CVPR 2021 (arXiv 2012.09841), as Chameleon lays it out (arXiv 2405.09818):
tensor names are those of the Chameleon and Anole checkpoints, so that their weights load unrenamed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=32, num_channels=channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut: [B, c, h, w] -> [B, c', h, w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class AttentionBlock(nn.Module):
    """Single-head attention over all places: [B, c, h, w] -> [B, c, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (conv(normed).flatten(2).transpose(1, 2) for conv in (self.q, self.k, self.v))  # [B, h*w, c]
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(attended.transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    """Double the size with the nearest value, then smooth: [B, c, h, w] -> [B, c, 2h, 2w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """The blocks at the coarsest level."""

    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels) if attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """One resolution: res blocks, attention where the config asks for it, then (but at the finest) doubling."""

    def __init__(self, in_channels: int, out_channels: int, n_blocks: int, attention: bool, finest: bool) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * n_blocks
        self.block = nn.ModuleList(ResnetBlock(widths[i], widths[i + 1]) for i in range(n_blocks))
        self.attn = nn.ModuleList(AttentionBlock(out_channels) for _ in range(n_blocks if attention else 0))
        if not finest:
            self.upsample = Upsample(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return self.upsample(x) if hasattr(self, "upsample") else x


class VQDecoder(nn.Module):
    """Latents [B, z, h, w] -> pixels [B, 3, H, W], about in [-1, 1] (nothing bounds them).

    `up` is indexed by level: `up[-1]` is the coarsest and runs first, `up[0]` works at full size.

    Args:
        config: of the VQ, as transformers has it (ChameleonVQVAEConfig): base_channels at the finest level;
            channel_multiplier, finest level first: H = h * 2 ** (levels - 1); num_res_blocks of the encoder, of which
            the decoder has one more at each level; latent_channels z; attn_resolutions of `resolution` say which levels
            attend.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        attention = config.attn_type == "vanilla"
        widths = [config.base_channels * m for m in config.channel_multiplier]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], attention)
        self.up = nn.ModuleList(
            Level(
                in_channels=widths[min(level + 1, len(widths) - 1)],
                out_channels=width,
                n_blocks=config.num_res_blocks + 1,
                attention=attention and config.resolution // 2**level in (config.attn_resolutions or ()),
                finest=level == 0,
            )
            for level, width in enumerate(widths)
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.in_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


def to_uint8(pixels: Tensor) -> Tensor:
    """Pixels [3, H, W] float in [-1, 1] (clamped) -> [H, W, 3] uint8, truncated as the original does."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).permute(1, 2, 0).contiguous()
