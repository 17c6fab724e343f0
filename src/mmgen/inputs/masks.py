"""Which codes of a picture are kept, whatever the words say: by rows, and by a mask. Knows Pillow, and no model."""

from __future__ import annotations

from mmgen.errors import UsageError
from mmgen.request import Request


def forced(request: Request, n_rows: int, n_columns: int) -> list[bool]:
    """Say of each code of an edited picture, in row-major order, whether it is kept.

    Raises:
        UsageError: the rows to keep, or the mask, do not go with the picture.
    """
    n_kept = 0
    if request.edit is not None and (keep := request.edit.keep) is not None:
        n_kept = max(1, round(n_rows * int(keep[:-1]) / 100)) if keep.endswith("%") else int(keep)
        if n_kept >= n_rows:
            raise UsageError(f"--keep {keep} leaves nothing to draw", f"there are {n_rows} rows of image tokens")
    is_above = [row < n_kept for row in range(n_rows) for _ in range(n_columns)]
    if request.mask is None or request.source is None:
        return is_above
    from PIL import Image, ImageOps

    grid, mask = (n_columns, n_rows), request.mask
    if mask.size not in (request.source.size, grid):
        sizes = " or ".join(f"{width} x {height}" for width, height in (request.source.size, grid))
        hint = f"it is of the size of the picture or of its image tokens: {sizes}"
        raise UsageError(f"the mask is {mask.width} x {mask.height}", hint)
    white = mask.convert("L").point([0] * 128 + [255] * 128)
    # A code of which any part is white is drawn anew; what lies beyond the picture's proportions is cut off
    cells = ImageOps.fit(white, grid, Image.Resampling.BOX).tobytes()
    if not any(cells):
        raise UsageError("the mask has no white in it", "white is what is drawn anew")
    return [above or not cell for above, cell in zip(is_above, cells, strict=True)]
