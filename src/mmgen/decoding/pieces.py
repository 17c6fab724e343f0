"""What a reply is made of, as it is shown: ids to text, codes to an image, or to a sketch of one. Knows no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from mmgen.decoding.vq import to_uint8


class Detokenizer:
    """Turn ids into text as they come: returned text is final, half a character waits for its other half.

    Args:
        decode: ids -> text.
        strip: leave out white space before the first word, as after an end-of-turn.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, strip: bool) -> None:
        self._decode = decode
        self._strip = strip
        self._ids: list[int] = []
        self._context = 0  # from here on ids are decoded again, because a token's text can depend on its left neighbour
        self._read = 0  # the text of the ids before this is out

    def push(self, id_: int) -> str:
        """Take one more id; return the text that it finished, perhaps none."""
        self._ids.append(id_)
        return self._new()

    def end(self) -> str:
        """Return what was still waiting."""
        return self._new(final=True)

    def _new(self, final: bool = False) -> str:
        before = self._decode(self._ids[self._context : self._read])
        text = self._decode(self._ids[self._context :])
        if text.endswith("\N{REPLACEMENT CHARACTER}") and not final:
            return ""
        self._context, self._read = self._read, len(self._ids)
        new = text[len(before) :]
        if self._strip:
            new = new.lstrip()
            self._strip = not new
        return new


def to_image(vq_decode: Callable[[Tensor], Tensor], codes: Sequence[int], n_rows: int) -> Image.Image:
    """Decode one picture's codes, row-major. One at a time: a batched decode changes bytes.

    Args:
        vq_decode: codes [1, h, w] int64 -> pixels [1, 3, H, W] float in [-1, 1].
    """
    pixels = vq_decode(torch.tensor(codes).view(1, n_rows, -1))[0]
    return Image.fromarray(to_uint8(pixels).cpu().numpy())


def to_sketch(
    vq_decode: Callable[[Tensor], Tensor], codes: Sequence[int], n_rows: int, n_columns: int
) -> Image.Image | None:
    """Decode the rows that are whole, of the codes so far; the rest is transparent. None if no row is whole.

    The decoder looks beyond each row, and some take pictures of one size alone: the last whole row stands in for those
    to come.
    """
    n_whole = len(codes) // n_columns
    if not n_whole:
        return None
    rows = torch.tensor(codes[: n_whole * n_columns]).view(1, n_whole, n_columns)
    filled = torch.cat([rows, rows[:, -1:].expand(-1, n_rows - n_whole, -1)], dim=1)  # [1, h, w]
    try:
        with torch.inference_mode():
            pixels = vq_decode(filled)[0]
    except torch.OutOfMemoryError:  # the picture itself may still fit
        return None
    decoded = Image.fromarray(to_uint8(pixels).cpu().numpy())
    sketch = Image.new("RGBA", decoded.size)
    sketch.paste(decoded.crop((0, 0, decoded.width, decoded.height * n_whole // n_rows)))
    return sketch
