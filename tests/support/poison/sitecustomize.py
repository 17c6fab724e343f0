"""In the workers of a test's cluster: a picture that ends whoever opens it, and one that is never opened."""

import os
import time
from typing import IO, Any

from mmgen.inputs import images

_read = images.read_image


def read_image(file: IO[bytes], name: str, **how: Any) -> Any:
    if "poison" in name:
        os._exit(1)
    if "hang" in name:
        time.sleep(1000)
    return _read(file, name, **how)


images.read_image = read_image
