"""Tiny random checkpoints of four families that chat about pictures, with their real processors and without meaning.

Each stands for a kind: cross-attention (mllama), a resampler (idefics2), tiles with tokens of their own (idefics3),
one block of tokens a picture (gemma3). All linear layers' inputs are a multiple of 64, as 4-bit weights on a CPU want.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    GenerationConfig,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

_CORPUS = (
    "What is in this picture? A red cat on the grass, a snowman in the snow, a blue boat at sunset.",
    "user assistant User: Assistant: model What do these two have in common? Once upon a time",
)
_WIDE = 0.2  # standard deviation of the weights: wide enough that random logits are no near ties


def make_tokenizer(special: Sequence[str], *, adds_bos: bool = True, **named: str) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer.

    Args:
        special: tokens with ids from 0 on.
        adds_bos: it puts its bos before a text.
        named: how the tokenizer calls some of them: `pad_token`, `image_token`, …; the first is `bos_token` if none is.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=len(special) + 256 + 40,
        special_tokens=list(special),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if adds_bos:
        bos = named.setdefault("bos_token", special[0])
        tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, special.index(bos))])
    usual = {name: value for name, value in named.items() if name in PreTrainedTokenizerFast.SPECIAL_TOKENS_ATTRIBUTES}
    extra = {name: value for name, value in named.items() if name not in usual}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=extra,
        **usual,
    )


def make_mllama(folder: Path, *, template: bool = True, positions: int = 256) -> Path:
    """Write a checkpoint in the format of Llama 3.2 Vision: its head has a row less than the image token wants."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<pad>"]
    tokenizer = make_tokenizer(names, eos_token="<|eot_id|>", pad_token="<pad>")
    n_words = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    image_id = tokenizer.convert_tokens_to_ids("<|image|>")
    assert image_id == n_words
    text = {
        "vocab_size": n_words,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "cross_attention_layers": [1],
        "max_position_embeddings": positions,
        "initializer_range": _WIDE,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
        "max_num_tiles": 4,
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 192,
        "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        "initializer_range": _WIDE,
    }
    config = MllamaConfig(text_config=text, vision_config=vision, image_token_index=image_id)
    model = _random(MllamaForConditionalGeneration, config)
    for name, parameter in model.named_parameters():
        if "gate" in name:  # zero as they are made: pictures would count for nothing
            torch.nn.init.ones_(parameter)
    images = MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=4)
    written = (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}{{ '<|image|>' }}{% else %}{{ content['text'] | trim }}{% endif %}"
        "{% endfor %}{{ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    )
    processor = MllamaProcessor(images, tokenizer, chat_template=written if template else None)
    return _save(folder, model, processor, eos=[1, 4])


def make_idefics2(folder: Path, *, template: bool = True, positions: int = 512) -> Path:
    """Write a checkpoint in the format of Idefics2."""
    names = ["<s>", "</s>", "<unk>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    tokenizer = make_tokenizer(names, eos_token="</s>", pad_token="<unk>")
    text = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": positions,
        "initializer_range": _WIDE,
        "pad_token_id": 2,
    }
    perceiver = {
        "hidden_size": 64,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 4,
        "resampler_head_dim": 16,
        "num_key_value_heads": 2,
        "initializer_range": _WIDE,
    }
    config = Idefics2Config(
        text_config=text, vision_config=_vision(image_size=56), perceiver_config=perceiver, image_token_id=4
    )
    images = Idefics2ImageProcessorPil(
        size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False, do_convert_rgb=True
    )
    written = _IDEFICS_TEMPLATE if template else None
    processor = Idefics2Processor(images, tokenizer, image_seq_len=4, chat_template=written)
    return _save(folder, _random(Idefics2ForConditionalGeneration, config), processor, eos=[1, 5])


def make_idefics3(folder: Path, *, template: bool = True, positions: int = 512, vision_intermediate: int = 128) -> Path:
    """Write a checkpoint in the format of Idefics3: a picture is cut into tiles, each with a row and a column."""
    names = ["<s>", "</s>", "<pad>", "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    names += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = make_tokenizer(names, eos_token="<end_of_utterance>", pad_token="<pad>")
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "initializer_range": _WIDE,
        "pad_token_id": 2,
    }
    vision = {**_vision(image_size=28), "intermediate_size": vision_intermediate}
    config = Idefics3Config(text_config=text, vision_config=vision, image_token_id=4, scale_factor=2)
    images = Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    written = _IDEFICS_TEMPLATE if template else None
    processor = Idefics3Processor(images, tokenizer, image_seq_len=1, chat_template=written)
    return _save(folder, _random(Idefics3ForConditionalGeneration, config), processor, eos=[1, 5])


def make_gemma3(folder: Path, *, template: bool = True, positions: int = 256) -> Path:
    """Write a checkpoint in the format of Gemma 3: the tokens of a picture see one another."""
    names = ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"]
    names += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = make_tokenizer(
        names,
        eos_token="<eos>",
        pad_token="<pad>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": positions,
        "sliding_window": 64,
        "query_pre_attn_scalar": 16,
        "initializer_range": _WIDE,
        "pad_token_id": 2,
    }
    config = Gemma3Config(
        text_config=text,
        vision_config={**_vision(image_size=28), "patch_size": 7},
        tie_word_embeddings=False,  # tied, random weights say one token for ever
        mm_tokens_per_image=4,
        boi_token_index=5,
        eoi_token_index=6,
        image_token_index=7,
    )
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    written = (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
        "{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ content['text'] | trim }}{% endif %}"
        "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )
    processor = Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=written if template else None)
    return _save(folder, _random(Gemma3ForConditionalGeneration, config), processor, eos=[1, 4])


MAKERS: dict[str, Callable[..., Path]] = {
    "mllama": make_mllama,
    "idefics2": make_idefics2,
    "idefics3": make_idefics3,
    "gemma3": make_gemma3,
}

_IDEFICS_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() + ':' }}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<image>' }}{% else %}{{ ' ' + content['text'] }}{% endif %}"
    "{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def _vision(image_size: int) -> dict[str, object]:
    return {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": 14,
        "initializer_range": _WIDE,
    }


def _random(model_class: type[PreTrainedModel], config: object) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config)


def _save(folder: Path, model: PreTrainedModel, processor: ProcessorMixin, eos: list[int]) -> Path:
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=eos, pad_token_id=processor.tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
