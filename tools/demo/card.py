"""The model card of the built-in checkpoint."""

NOTE = (
    "The built-in model draws small cartoon scenes (96x96: snowmen, cats, houses, ...). "
    "For real pictures name a large model: -m anole-7b"
)
BEGIN_RESULTS, END_RESULTS = "<!-- results -->", "<!-- end of results -->"
TEMPLATE = """---
license: apache-2.0
library_name: transformers
pipeline_tag: any-to-any
tags:
- chameleon
- anole
- mmgen
mmgen_note: "{note}"
---

# demo: the built-in model of mmgen

A small checkpoint in the format of `leloy/Anole-7b-v0.1-hf` (Chameleon with its VQ decoder), trained from scratch
by this project on pictures that it draws itself. It is there so that every command of mmgen works at once: without
a download, an account or a GPU. It is a toy: ten subjects (snowman, cat, house, tree, car, fish, boat, flower,
balloon, mushroom), eight colours (red, orange, yellow, green, blue, purple, pink, white) and five places (in the
snow, on the grass, at night, on the beach, at sunset), in pictures of 96x96 pixels. It knows nothing else, and
other words are ignored or misunderstood.

## Results

<!-- results -->
{results}
<!-- end of results -->

{training}

## Shape

Pictures are 12x12 = 144 codes of 1024. VQ: base 64 channels at every level, no residual blocks in the encoder's
levels and one in each of the decoder's, 0.92 M parameters. Transformer: 6 layers of 256, 8 heads, 1024 positions,
4.85 M parameters. Stored in bfloat16. The vocabulary is byte-level, so any text has ids.
"""


TRAINING = """## Training

`python -m tools.demo.build` makes everything again, on two CPU cores and without any download: it renders the pictures,
trains the VQ, encodes, trains the transformer, refines the VQ's decoder, trains the judge, exports and evaluates.

- Data: scenes drawn by `tools/demo/render.py` (picture i with seed i), 40,000 for the VQ, 200,000 for the transformer;
  words by the grammar in `tools/demo/text.py` and `tools/demo/stories.py`. Nothing else, nobody's pictures or texts.
  Pictures of 40 of the 400 combinations of subject, colour and place are held out of all stages.
- VQ: seed 1, 3,400 steps of 8 pictures (absolute error, the subject's area weighted four times, and the error of
  neighbouring differences), then its decoder alone; about 50 minutes.
- Transformer: seed 2, 19,900 steps of two small batches, one of drawings and one of other exchanges; Muon for the
  hidden matrices, AdamW for the rest; loss on replies, on input pictures as drawn from nothing, which is the
  unconditional row of guidance, and in the middle layers on naming what pictures show and what each code is drawn for
  (heads that are thrown away). In half of the drawings and variations the picture sees what was asked through its
  begin-image alone, and only in the last two layers, so that variations are drawn from the same plan as words are. In
  half of them up to 40 % of the codes that it sees as its own are another picture's: drawing what was asked is learned
  where what stands there already says otherwise. About five and a half hours.
- These weights were not trained in one go, the rate being raised anew each time: 4,400 steps without those heads, 2,400
  with them in one layer, 600 and 2,000 with them in two and with what two pictures share, 200 with answers about two
  pictures that name both first, 1,600 with pictures that see their begin-image alone, 2,800 with that in the last
  layers only and with captions compared as words (some of held-out scenes, as text), all of it on 24,000 pictures: by
  then it knew these by heart (1.02 nats a code, 1.54 on fresh ones), backgrounds with their subjects, and drew a
  remembered subject in place of what was asked. The next 1,700 steps saw 70,000 fresh pictures. Variations still lost
  their subject, though their codes knew it at first (100 % by the heads of each code): once a wrong one was sampled,
  they believed what they had drawn. The last 4,200 steps saw 200,000 pictures, 2,900 of them with codes of others.
- Sampled more coldly than trained, this model tends to leave the subject out. The rows of its head that belong to codes
  are therefore stored times 0.7, so that a temperature of 0.7, mmgen's default, is the temperature 1 of its training.
- The table's variations are few. Of 200 others (seed 77, all of trained scenes) 175 were right (87.5 %), and 185 with
  `--image-guidance 2`.
- Another machine, or another number of threads, gives slightly different weights.
"""


def write_card(results: str, training: str) -> str:
    """Return README.md from the table of results and the section about training."""
    return TEMPLATE.format(note=NOTE, results=results, training=training)
