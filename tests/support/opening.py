"""Opening a checkpoint by its name, as commands do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmgen import families
from mmgen.checkpoints import catalog
from mmgen.request import Loading


def opened(name: str | Path, loading: Loading | None = None, **wanted: Any) -> Any:
    """Find a checkpoint, and open it for what is wanted."""
    return families.open_model(catalog.find(str(name)), loading or Loading(), **wanted)
