"""The tokenizer: byte-level BPE over the corpus of text.py, laid out in ids as Chameleon's is.

ids: bos 0, pad 1, eos 2, unk 3, image codes from 4, then end-of-image, begin-of-image, end-of-turn, the image
placeholder, the 256 bytes and the merges. Any text has ids, known words or not.
"""

import json
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from . import stories, text
from .scene import ALL_SCENES, TRAINED
from .vq_model import N_CODES

BOS, PAD, EOS, UNK, FIRST_CODE = 0, 1, 2, 3, 4
END_IMAGE, BEGIN_IMAGE = FIRST_CODE + N_CODES, FIRST_CODE + N_CODES + 1
END_TURN, PLACEHOLDER, FIRST_TEXT = END_IMAGE + 2, END_IMAGE + 3, END_IMAGE + 4
N_TEXT = 256 + 480
N_IDS = FIRST_TEXT + N_TEXT
SPECIAL = {
    BOS: "<s>", PAD: "<pad>", EOS: "</s>", UNK: "<unk>", END_IMAGE: "<eoss>", BEGIN_IMAGE: "<racm3:break>",
    END_TURN: "<reserved08706>", PLACEHOLDER: "<image>",
}  # fmt: skip


def code_name(code: int) -> str:
    """Return Chameleon's name of an image code: its digits as letters, e.g. 10 -> IMGIMGBAZ."""
    return "IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(code)) + "Z"


def corpus(n: int = 20_000, seed: int = 5) -> list[str]:
    """Return sample sentences of every kind."""
    rng = random.Random(seed)
    lines = [scene.caption for scene in ALL_SCENES]
    for _ in range(n):
        scene = rng.choice(TRAINED)
        _, reply = stories.interleave(rng)
        lines += [text.draw(rng)[0], *text.caption(scene, rng), *text.ask(scene, rng), text.change(scene, rng)[0],
                  *text.talk(rng), *(part for part in reply if isinstance(part, str)),
                  *text.common(scene, rng.choice(TRAINED), rng)]  # fmt: skip
    return lines


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the merges and lay out the ids."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=N_TEXT, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(corpus(), trainer)
    learned = bpe.get_vocab()
    vocabulary = {name: FIRST_TEXT + id_ for name, id_ in learned.items()}
    vocabulary |= {name: id_ for id_, name in SPECIAL.items()}
    vocabulary |= {code_name(code): FIRST_CODE + code for code in range(N_CODES)}
    merges = [tuple(pair) for pair in _merges(bpe)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL.values()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        sep_token="<reserved08706>", padding_side="left", model_max_length=1024,
    )  # fmt: skip


def _merges(bpe: Tokenizer) -> list[list[str]]:
    found: list[list[str]] = json.loads(bpe.to_str())["model"]["merges"]
    return found


def vocabulary_map(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return name -> id for the config, in order of id."""
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
