"""The VQ decoder against numbers of the original implementation, and against the layout of the 7B checkpoint.

`reference/vq_tiny.safetensors` holds synthetic weights and what the original Chameleon VQGAN made of them;
`reference/anole_7b_vq_tensors.json` the names and shapes of a real checkpoint's VQ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from transformers import ChameleonConfig, ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

from mmgen.decoding.vq import VQDecoder, to_uint8

REFERENCE = Path(__file__).parents[1] / "reference"
VQ = "model.vqmodel."


@pytest.fixture(scope="module")
def tiny() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safe_open(REFERENCE / "vq_tiny.safetensors", "pt") as file:
        return json.loads(file.metadata()["vq_config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def make_decoder(config: dict[str, Any]) -> VQDecoder:
    return VQDecoder(ChameleonVQVAEConfig(**config))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_those_of_the_original(tiny: Any, memory_format: torch.memory_format) -> None:
    config, tensors = tiny
    decoder = make_decoder(config).to(memory_format=memory_format)
    decoder.load_state_dict(part(tensors, VQ + "decoder."))
    rows = F.embedding(tensors["reference.codes"], tensors[VQ + "quantize.embedding.weight"])
    latents = rows.view(3, 8, 8, -1).permute(0, 3, 1, 2)
    post = part(tensors, VQ + "post_quant_conv.")
    with torch.inference_mode():
        pixels = decoder(F.conv2d(latents, post["weight"], post["bias"]))
    torch.testing.assert_close(pixels, tensors["reference.pixels"], atol=1e-5, rtol=0)


def test_bytes_are_truncated_as_in_the_original(tiny: Any) -> None:
    tensors = tiny[1]
    bytes_ = torch.stack([to_uint8(pixels) for pixels in tensors["reference.pixels"]])
    assert torch.equal(bytes_.permute(0, 3, 1, 2), tensors["reference.pixels_uint8_truncated"])


def test_encoder_codes_are_those_of_the_original(tiny: Any) -> None:
    config, tensors = tiny
    vq = ChameleonVQVAE(ChameleonVQVAEConfig(**config))
    vq.load_state_dict({name: t for name, t in part(tensors, VQ).items() if not name.startswith("decoder.")})
    with torch.inference_mode():
        codes = vq.encode(tensors["reference.encode_input"]).image_tokens
    assert torch.equal(codes.view(2, -1), tensors["reference.encode_codes"])


def test_all_names_and_shapes_of_the_7b_layout() -> None:
    from mmgen.families.chameleon import Anole

    config = ChameleonConfig(vocabulary_map={"<image>": 8711})
    with torch.device("meta"):
        model = Anole(config)
    ours = {name: list(t.shape) for name, t in model.state_dict().items() if name.startswith(VQ)}
    theirs = json.loads((REFERENCE / "anole_7b_vq_tensors.json").read_text())
    assert len(theirs) == 293
    assert ours == theirs
    assert sum(p.numel() for p in model.model.vqmodel.decoder.parameters()) == 39_294_851


@pytest.mark.parametrize("attention", [True, False])
def test_attention_stands_where_the_config_says(attention: bool) -> None:
    config = ChameleonVQVAEConfig(
        base_channels=32,
        channel_multiplier=[1, 2],
        num_res_blocks=1,
        latent_channels=8,
        resolution=32,
        attn_resolutions=[16],
        attn_type="vanilla" if attention else "none",
    )
    decoder = VQDecoder(config)
    assert [len(level.attn) for level in decoder.up] == ([0, 2] if attention else [0, 0])
    assert decoder(torch.zeros(1, 8, 4, 6)).shape == (1, 3, 8, 12)
