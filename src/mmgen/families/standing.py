"""What is known of each model type that transformers lists as image-text-to-text: tested, expected to work, or not.

`python -m tools.models_table` writes docs/models.md from it, beside transformers' own list; tests hold both together.
"""

from __future__ import annotations

from mmgen.errors import MmgenError

# Run by tests with a tiny random checkpoint, against plain transformers.
_TESTED = (
    "anole aria aya_vision blip blip-2 chameleon deepseek_vl emu3 florence2 gemma3 gemma4 git glm46v glm4v glm4v_moe "
    "glm_ocr idefics2 idefics3 internvl janus kosmos-2 lighton_ocr llava llava_next llava_onevision minicpmv4_6 mllama "
    "ovis2 paddleocr_vl paligemma pix2struct qwen2_5_vl qwen2_vl qwen3_5 qwen3_vl qwen3_vl_moe smolvlm"
)
TESTED = frozenset(_TESTED.split())

# Whose image processors need a package that a default installation lacks.
_TORCHVISION = (
    "cohere2_vision gemma4_unified inkling2 inkling_mm_model kimi_k25 lfm2_vl llama4 minicpm_ocr minimax_m3_vl "
    "mistral3 mistral_large4 molmo2 muse_glimmer muse_spark nemotron_h_omni step3p7 unlimited_ocr"
)
PACKAGES = dict.fromkeys(_TORCHVISION.split(), "torchvision") | {"gemma3n": "timm", "perception_lm": "timm"}

# Without a chat template as a rule, and without a prompt of their own that is known here (see `plain`).
UNASKED = frozenset({"fuyu", "idefics", "kosmos-2.5", "udop", "vision-encoder-decoder"})

# In the list, and no chat about pictures.
OTHERS = {
    "diffusion_gemma": "it writes by block diffusion",
    "evolla": "it is asked about proteins",
    "instructblipvideo": "it looks at videos alone",
    "mistral4": "it takes text alone",
    "pi0": "it steers robots",
    "pp_formulanet": "it reads formulas alone",
}


def standing(model_type: str) -> str:
    """Say in a line what is known of a model type."""
    if model_type in TESTED:
        return "run by tests with a tiny random checkpoint"
    if model_type in OTHERS:
        return f"refused: {OTHERS[model_type]}"
    if model_type in PACKAGES:
        return f"expected to work, with the package {PACKAGES[model_type]}"
    if model_type in UNASKED:
        return "without a chat template it continues texts, with --complete, at most"
    return "expected to work, if transformers lists it as image-text-to-text"


def refuse_others(name: str, model_type: str) -> None:
    """Refuse a model that is no chat about pictures, though transformers lists it among those.

    Raises:
        MmgenError: it is one of them.
    """
    if model_type in OTHERS:
        raise MmgenError(f'{name} is of model type "{model_type}": {OTHERS[model_type]}', "use another model")
