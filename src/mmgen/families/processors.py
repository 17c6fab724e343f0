"""A checkpoint's processor, which prepares text and images: its image part by Pillow, and without a part for video.

Most processors that take video as well want torchvision for that part alone. Without it, and with Pillow's image part
whether torchvision is there or not, a default installation runs them, and answers do not depend on what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from mmgen.checkpoints import fit
from mmgen.errors import MmgenError, first_line

if TYPE_CHECKING:
    from mmgen.checkpoints.catalog import Checkpoint

_VIDEO = "video_processor"
_VIDEO_FILE = "video_preprocessor_config.json"
_NAMED_IN = ("processor_config.json", "preprocessor_config.json", _VIDEO_FILE, "tokenizer_config.json")


class _NoVideo(SimpleNamespace):
    """Stands for a video processor: the fields of its file, and those that a processor reads though none is there."""

    num_frames = fps = 1
    video_sampling: Mapping[str, int] = MappingProxyType({})


def load_processor(checkpoint: Checkpoint) -> Any:
    """Load what prepares text and images, and see that it can do both.

    Raises:
        MmgenError: it is not there, not whole, or needs a package that is not installed.
    """
    try:
        processor = _find_class(checkpoint).from_pretrained(
            checkpoint.folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
        _ = processor.image_processor
        if processor.chat_template is None:  # in older checkpoints it is the tokenizer's
            processor.chat_template = processor.tokenizer.chat_template
    except (ImportError, ValueError, OSError, AttributeError) as error:
        package = fit.needed_package(error)
        if package is not None and not isinstance(error, OSError):  # which may have it in a path
            raise MmgenError(
                f"{checkpoint.name} needs the package {package} to prepare pictures", fit.install_command(package)
            ) from error
        why = first_line(error).partition(". If you were")[0]  # it goes on about the Hub
        raise MmgenError(
            f"{checkpoint.name} has no processor for text and pictures: {why}",
            "copy processor_config.json or preprocessor_config.json beside the weights",
        ) from error
    return processor


def _find_class(checkpoint: Checkpoint) -> Any:
    """Find the processor's class as AutoProcessor does (transformers, models/auto/processing_auto.py).

    It is imported from its own file: at the package's top a stand-in that only raises takes the place of each class for
    which some package is missing, though it be for video alone.
    """
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, AutoProcessor  # type: ignore[attr-defined]  # it is defined there in full

    named = (checkpoint.read_json(file).get("processor_class") for file in _NAMED_IN)
    name: Any = next(filter(None, named), None) or PROCESSOR_MAPPING_NAMES.get(checkpoint.model_type)
    for model_type in (checkpoint.model_type, *PROCESSOR_MAPPING_NAMES):  # some types share the class of another
        module = model_type_to_module_name(model_type)
        path = f"transformers.models.{module}.processing_{module}"
        if PROCESSOR_MAPPING_NAMES.get(model_type) == name and find_spec(path) is not None:
            found = getattr(import_module(path), name)
            return _without_video(found, checkpoint) if _VIDEO in found.get_attributes() else found
    return AutoProcessor


def _without_video(processor_class: Any, checkpoint: Checkpoint) -> Any:
    """Make a class of a processor that neither loads nor wants its part for video."""
    parts: list[str] = processor_class.get_attributes()
    written = checkpoint.read_json("processor_config.json").get(_VIDEO) or checkpoint.read_json(_VIDEO_FILE)

    class Loader(processor_class):  # type: ignore[misc]  # a class that the checkpoint names
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [part for part in parts if part != _VIDEO]

    class WithoutVideo(processor_class):  # type: ignore[misc]  # likewise
        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
            loaded: list[Any] = Loader._get_arguments_from_pretrained(*args, **kwargs)
            return [*loaded[: parts.index(_VIDEO)], _NoVideo(**written), *loaded[parts.index(_VIDEO) :]]

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, _NoVideo):
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

        def __repr__(self) -> str:  # which is else its JSON, and made for a log as it is loaded
            return f"{processor_class.__name__} without video"

    return WithoutVideo
