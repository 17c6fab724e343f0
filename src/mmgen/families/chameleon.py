"""Chameleon (words about pictures) and Anole (pictures too, interleaved). Knows nothing of the command line.

Chameleon: arXiv 2405.09818. Anole: arXiv 2407.06135. Stock transformers classes load the checkpoint, with Anole's
picture decoder added; the decoding loops are ours, because stock `forward` masks every image token.
"""

from __future__ import annotations

from typing import cast

import torch
from PIL import Image
from torch import Tensor
from transformers.models.chameleon.configuration_chameleon import ChameleonConfig, ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonForConditionalGeneration

from mmgen.catalog import Checkpoint
from mmgen.decoding.cache import Cache
from mmgen.decoding.grammar import Prompt
from mmgen.decoding.replies import Speaker
from mmgen.decoding.stepwise import Network
from mmgen.decoding.vq import VQDecoder
from mmgen.errors import MmgenError
from mmgen.families.chameleon_prompt import Prompter
from mmgen.families.speaking import CodeHead, SpeakingModel, attention_mask, check_codec, refuse_flash
from mmgen.loading import load_model, read_image_processor
from mmgen.request import BOTH, WORDS, Loading, Request

_DECODER = "model.vqmodel.decoder."


class ChameleonOfWords(ChameleonForConditionalGeneration):
    """Stock Chameleon with its VQ in float32: under bfloat16 the encoder's choice of the nearest code flips."""

    # Plain lists, as transformers declares them.
    _keep_in_fp32_modules_strict = ["vqmodel"]  # noqa: RUF012
    _no_split_modules = [*ChameleonForConditionalGeneration._no_split_modules, "ChameleonVQVAE"]  # noqa: RUF012


class Anole(ChameleonOfWords):
    """Chameleon with the VQ's decoder, under the tensor names of the original checkpoints."""

    def __init__(self, config: ChameleonConfig) -> None:
        super().__init__(config)
        vq = cast(ChameleonVQVAEConfig, config.vq_config)
        self.model.vqmodel.decoder = VQDecoder(
            base_channels=vq.base_channels,
            channel_multiplier=vq.channel_multiplier,
            num_res_blocks=vq.num_res_blocks,
            latent_channels=vq.latent_channels,
            resolution=vq.resolution,
            attn_resolutions=vq.attn_resolutions or (),
            attention=vq.attn_type == "vanilla",
            out_channels=vq.in_channels,
        )


def load(checkpoint: Checkpoint, loading: Loading) -> Chameleon:
    """Load a checkpoint of model type "chameleon".

    Raises:
        MmgenError: float16 was asked for, in which this family overflows, or the weights do not fit the config.
    """
    if loading.dtype == "float16":
        raise MmgenError("Chameleon and Anole overflow in float16", "use --dtype bfloat16, or float32 on a CPU")
    refuse_flash(loading, "Chameleon and Anole")
    prompter = Prompter(checkpoint)
    draws = any(name.startswith(_DECODER) for name in checkpoint.tensors)
    model = load_model(Anole if draws else ChameleonOfWords, checkpoint, loading, keep_whole=["model.vqmodel"])
    check_codec(model.model.vqmodel, "model.vqmodel")
    return Chameleon(checkpoint, model, prompter, draws)


class Chameleon(SpeakingModel):
    """A loaded Chameleon or Anole checkpoint.

    Attributes:
        model: the transformers model.
        prompter: writes its prompts.
        speaker: what the decoding loops need of it.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: ChameleonForConditionalGeneration, prompter: Prompter, draws: bool
    ) -> None:
        self.name, self.revision, self.note = checkpoint.name, checkpoint.revision, checkpoint.note
        self.gives = BOTH if draws else WORDS
        self.model, self.prompter = model, prompter
        self._image_processor = read_image_processor(checkpoint)
        self._vq = model.model.vqmodel.to(memory_format=torch.channels_last)
        self._embedding = cast(torch.nn.Embedding, model.get_input_embeddings())
        code_ids = torch.tensor(prompter.vocabulary.code_ids, device=self._embedding.weight.device)
        self.speaker = Speaker(
            Network(self._body, model.lm_head, CodeHead(model.lm_head, code_ids), code_ids),
            prompter.vocabulary,
            prompter.context,
            prompter.decode,
            self.decode,
        )

    def prompt(self, request: Request) -> Prompt:
        """Write a request's prompt, its pictures as codes.

        Raises:
            MmgenError: too long for the context, or beyond what the checkpoint can do.
        """
        self.abilities.check(self.name, request.want, [request])
        return self.prompter.write(request, self.encode)

    @torch.inference_mode()
    def encode(self, image: Image.Image) -> list[int]:
        """Turn a picture into its VQ codes, row-major; resized and cropped as the checkpoint's processor says."""
        pixels = self._image_processor(images=[image], return_tensors="pt")["pixel_values"]  # [1, 3, H, W]
        weight = self._vq.quant_conv.weight
        codes: list[int] = self._vq.encode(pixels.to(weight.device, weight.dtype)).image_tokens.flatten().tolist()
        return codes

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn codes [B, h, w] int64 into pixels [B, 3, H, W] float32, about in [-1, 1]."""
        rows = self._vq.quantize.embedding(codes.to(self._vq.quant_conv.weight.device))  # [B, h, w, z]
        latents = self._vq.post_quant_conv(rows.permute(0, 3, 1, 2))  # channels last, as the embedding lies
        pixels: Tensor = self._vq.decoder(latents)
        return pixels

    def _body(self, ids: Tensor, positions: Tensor, cache: Cache, visible: Tensor) -> Tensor:
        mask = attention_mask(visible, self._embedding.weight.dtype)
        hidden: Tensor = self.model.model(
            input_ids=ids, position_ids=positions, past_key_values=cache, attention_mask=mask, use_cache=True
        ).last_hidden_state
        return hidden
