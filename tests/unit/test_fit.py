"""What a checkpoint takes in memory, from shapes alone, and what is refused for it."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from huggingface_hub.utils import TensorInfo
from transformers import AutoModelForImageTextToText, ChameleonConfig, Idefics2Config, MllamaConfig, PreTrainedConfig

from mmgen import families
from mmgen.checkpoints import catalog, fit, loading
from mmgen.checkpoints.catalog import Checkpoint, stored_bytes
from mmgen.checkpoints.fit import Gpu, Machine
from mmgen.errors import MmgenError
from mmgen.families.chameleon import ChameleonOfWords
from mmgen.request import BOTH, PICTURES, WORDS, Loading
from tests.support.chat_checkpoints import make_mllama
from tests.support.checkpoints import SIZE_PX, make_checkpoint
from tests.support.drawing_checkpoints import make_emu3
from tests.support.hub import write_hollow
from tests.support.opening import opened
from tests.support.scripted import run

GB = 10**9
CODEC = "vqmodel."
USUAL = fit.Reply(codec=CODEC)
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}


def shaped(config: PreTrainedConfig) -> Checkpoint:
    """A checkpoint of the full size of a config, in bfloat16, without weights."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    tensors = {
        name: TensorInfo(NAMES[tensor.dtype], list(tensor.shape), (0, tensor.nbytes))
        for name, tensor in model.state_dict().items()
    }
    return Checkpoint("large", Path("large"), None, config.to_dict(), tensors)


@pytest.fixture(scope="module")
def seven() -> Checkpoint:
    return shaped(ChameleonConfig(vocabulary_map={"<image>": 8711}))


def test_weights_are_counted_by_type(seven: Checkpoint) -> None:
    codec = [tensor for name, tensor in seven.tensors.items() if "vqmodel" in name and tensor.dtype == "BF16"]
    n_more = stored_bytes(*codec)
    assert fit.weights_bytes(seven, "bfloat16", codec=CODEC) == seven.n_bytes + n_more, (
        "the codec is computed in float32"
    )
    assert fit.weights_bytes(seven, "float32") == 2 * seven.n_bytes
    assert 14.0 * GB < seven.n_bytes < 14.2 * GB
    assert 4.5 * GB < fit.weights_bytes(seven, "bfloat16", "4bit", CODEC) < 4.9 * GB
    assert fit.weights_bytes(replace(seven, config={"quantization_config": {}}), "float32") == seven.n_bytes


@pytest.mark.parametrize("quantize", [None, "8bit", "4bit"])
def test_what_is_said_is_what_a_loaded_model_takes(tmp_path: Path, quantize: str | None) -> None:
    found = catalog.find(str(make_checkpoint(tmp_path / "model", decoder=False)))
    model = loading.load_model(ChameleonOfWords, found, Loading(dtype="bfloat16", quantize=quantize, device_map="cpu"))
    taken = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert fit.weights_bytes(found, "bfloat16", quantize, CODEC) == pytest.approx(taken, rel=0.02 if quantize else 0)


def test_the_cache_is_that_of_the_layers_that_speak(seven: Checkpoint) -> None:
    assert fit.cache_per_token(seven, "bfloat16") == 2 * 32 * 4096 * 2
    assert fit.cache_per_look(seven, "bfloat16") == 0
    llama = shaped(MllamaConfig())
    assert 21.2 * GB < llama.n_bytes < 21.4 * GB
    assert fit.cache_per_token(llama, "bfloat16") == 2 * 32 * 8 * 128 * 2  # 8 more layers look across at pictures
    assert fit.cache_per_look(llama, "bfloat16") == 2 * 8 * 8 * 128 * 2 * 4 * (
        (llama.config["vision_config"]["image_size"] // 14) ** 2 + 1
    )
    idefics = shaped(Idefics2Config())  # its resampler has keys and values too
    assert fit.cache_per_token(idefics, "bfloat16") == 2 * 32 * 8 * 128 * 2
    fused = replace(seven, tensors={"model.layers.0.qkv_proj.weight": TensorInfo("F32", [4, 4], (0, 64))})
    assert fit.cache_per_token(fused, "bfloat16") == 2 * 32 * 4096 * 2  # by the config


def test_a_picture_is_as_many_tokens_as_its_vq_makes(seven: Checkpoint, tmp_path: Path) -> None:
    decoder = {"model.vqmodel.decoder.conv_in.weight": TensorInfo("F32", [1], (0, 4))}
    assert families.picture_tokens(replace(seven, tensors={**seven.tensors, **decoder})) == 1024
    assert families.picture_tokens(seven) == 0
    assert families.picture_tokens(catalog.find(str(make_checkpoint(tmp_path / "tiny")))) == 16


# --- does it fit --------------------------------------------------------------------------------------------------


def refusal(checkpoint: Checkpoint, here: Machine, reply: fit.Reply = USUAL, **options: Any) -> MmgenError | None:
    try:
        fit.check(checkpoint, Loading(**options), here, reply)
    except MmgenError as error:
        return error
    return None


def gpus(*free: float) -> tuple[Gpu, ...]:
    return tuple(Gpu("card", int(n * GB), int(n * GB)) for n in free)


@pytest.mark.parametrize(
    ("here", "options", "fits"),
    [
        (Machine(17 * GB, 32 * GB), {}, True),
        (Machine(14 * GB, 32 * GB), {}, False),
        (Machine(14 * GB, 32 * GB), {"dtype": "float32"}, False),
        (Machine(32 * GB, 32 * GB), {"dtype": "float32"}, True),
        (Machine(10 * GB, 32 * GB), {"quantize": "8bit"}, True),
        (Machine(7 * GB, 32 * GB), {"quantize": "8bit"}, False),
        (Machine(7 * GB, 32 * GB), {"quantize": "4bit"}, True),
        (Machine(5 * GB, 32 * GB, gpus(24)), {}, True),
        (Machine(5 * GB, 32 * GB, gpus(24)), {"device_map": "cpu"}, False),
        (Machine(5 * GB, 32 * GB, gpus(8, 8)), {"device_map": "cuda:1"}, False),
        (Machine(5 * GB, 32 * GB, gpus(8, 24)), {"device_map": "cuda:1"}, True),
        (Machine(5 * GB, 32 * GB, gpus(8, 8)), {"device_map": "balanced"}, True),
        (Machine(12 * GB, 32 * GB, gpus(8)), {}, True),  # what the GPU cannot hold goes beside it
        (Machine(32 * GB, 32 * GB, gpus(4)), {"quantize": "4bit"}, False),  # which quantised layers cannot
        (Machine(1 * GB, 32 * GB, gpus(4)), {"device_map": "map.json"}, True),
        (Machine(1 * GB, 32 * GB, gpus(4)), {"device_map": "cuda:7"}, True),  # said by the loader
    ],
)
def test_what_fits_goes_on_and_what_cannot_is_refused(
    seven: Checkpoint, here: Machine, options: dict[str, str], fits: bool
) -> None:
    assert (refusal(seven, here, **options) is None) == fits


def test_a_refusal_says_how_much_and_which_flags_would_do(seven: Checkpoint) -> None:
    error = refusal(seven, Machine(10 * GB, 32 * GB))
    assert error is not None
    assert error.message == "large takes 15.9 GB (in bfloat16), and 10.0 GB of memory are free"
    fitting = "--quantize 8bit (9.4 GB), or --quantize 4bit (6.6 GB)"
    assert error.hint == f"here fits: {fitting}. --no-fit-check tries all the same"
    error = refusal(seven, Machine(20 * GB, 32 * GB, gpus(8)), device_map="cuda:0")
    assert error is not None
    assert "8.0 GB of the GPU are free" in error.message
    assert "--quantize 4bit (6.6 GB), or --device-map cpu --dtype bfloat16 (15.9 GB)" in error.hint
    error = refusal(seven, Machine(2 * GB, 32 * GB))
    assert error is not None
    assert "nothing makes it fit: --quantize 4bit takes 6.6 GB" in error.hint
    assert "mmgen models" in error.hint


@pytest.fixture
def huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with weights of 34 GB, on a machine with 8 GB."""
    folder = make_checkpoint(tmp_path / "huge")
    found = catalog.find(str(folder))
    tensors = {name: (tensor.dtype, tensor.shape) for name, tensor in found.tensors.items()}
    write_hollow(
        folder / "model.safetensors", tensors | {"model.layers.9.mlp.up_proj.weight": ("BF16", (131072, 131072))}
    )
    monkeypatch.setattr(fit, "look", lambda **_: Machine(8 * GB, 16 * GB))
    return folder


def test_a_model_is_refused_before_it_is_loaded(huge: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(MmgenError, match=r"takes 3[45]\.\d GB \(in bfloat16\), and 8\.0 GB of memory are free"):
        opened(huge)
    assert time.perf_counter() - start < 2


def test_no_fit_check_goes_on(huge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "fetch", lambda found: _stop())
    with pytest.raises(KeyboardInterrupt):
        opened(huge, Loading(fit_check=False))


def _stop() -> None:
    raise KeyboardInterrupt


def test_drawing_counts_the_picture_s_rows(huge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[fit.Reply] = []
    monkeypatch.setattr(fit, "check", lambda found, how, here, reply: asked.append(reply))
    monkeypatch.setattr(catalog, "fetch", lambda found: _stop())
    for want in (WORDS, PICTURES):
        with pytest.raises(KeyboardInterrupt):
            opened(huge, want=want)
    maps = 6 * SIZE_PX**2 * 32 * 4  # of 32 channels in float32
    assert asked == [fit.Reply(fit.TOKENS, 0, CODEC), fit.Reply(fit.TOKENS + 3 * 16, maps, CODEC)]


def test_what_is_said_to_fit_has_room_for_drawing_too(huge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = catalog.find(str(huge))
    words = fit.plan(found, Loading(dtype="bfloat16"), fit.look(), USUAL).n_bytes
    monkeypatch.setattr(fit, "look", lambda **_: Machine(words, words))
    with pytest.raises(MmgenError, match="are free"):
        opened(huge, want=PICTURES)
    (way,) = [way for way in json.loads(run("models", str(huge), "--json").out)["ways"] if way["default"]]
    assert not way["fits"]


def test_what_fits_to_draw_may_not_fit_to_interleave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = str(make_checkpoint(tmp_path / "long", positions=4096))
    found = catalog.find(long)
    drawing, mixed = (
        fit.plan(found, Loading(), Machine(GB, GB), families.reply(found, want)).n_bytes for want in (PICTURES, BOTH)
    )
    assert drawing < mixed
    for free, fits in ((mixed, (True, True)), (mixed - 1, (True, False)), (drawing - 1, (False, False))):
        monkeypatch.setattr(fit, "look", lambda free=free, **_: Machine(free, free))
        (way,) = [way for way in json.loads(run("models", long, "--json").out)["ways"] if way["default"]]
        assert (way["n_bytes"], way["interleave"]["n_bytes"]) == (drawing, mixed)
        assert (way["fits"], way["interleave"]["fits"]) == fits
        for want, goes_on in zip((PICTURES, BOTH), fits, strict=True):
            assert (refusal(found, fit.look(), families.reply(found, want)) is None) == goes_on
        (said,) = [line for line in run("models", long).out.splitlines() if "(default)" in line]
        assert said.endswith({(True, True): "  yes", (True, False): "  not to interleave"}.get(fits, "  no"))


def test_only_what_interleaves_is_weighed_for_it(tmp_path: Path) -> None:
    for number, make in enumerate((make_emu3, make_mllama, lambda folder: make_checkpoint(folder, decoder=False))):
        folder = str(make(tmp_path / str(number)))
        assert "INTERLEAVE" not in run("models", folder).out
        assert all(way["interleave"] is None for way in json.loads(run("models", folder, "--json").out)["ways"])


def test_a_model_is_tried_with_what_it_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = catalog.find(str(make_checkpoint(tmp_path / "my model")))
    monkeypatch.setattr(fit, "look", lambda **_: Machine(8 * GB, 16 * GB))
    for name, command in ((found.name, "caption photo.jpg"), ("emu3-gen", 'draw "a snowman"')):
        monkeypatch.setattr(catalog, "find", lambda *_, name=name, **__: replace(found, name=name))
        said = run("models", name).out.splitlines()[-1]
        assert said == f"try: mmgen {command} -m {shlex.quote(name)}"


# --- the machine --------------------------------------------------------------------------------------------------


def test_the_machine_s_memory_is_known() -> None:
    here = fit.look()
    assert 0 < here.free <= here.total
    assert here.total > GB / 4


GROUP = {
    "/proc/self/cgroup": "1:memory:/old\n0::/box\n",
    "/sys/fs/cgroup/box/memory.max": f"{8 * GB}\n",
    "/sys/fs/cgroup/box/memory.current": f"{5 * GB}\n",
    "/sys/fs/cgroup/box/memory.stat": f"anon 1\ninactive_file {2 * GB}\n",
}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, (20 * GB, 32 * GB)),  # no Linux
        (GROUP, (5 * GB, 8 * GB)),
        (GROUP | {"/sys/fs/cgroup/box/memory.max": "max\n"}, (20 * GB, 32 * GB)),
        (GROUP | {"/sys/fs/cgroup/box/memory.max": f"{64 * GB}\n"}, (20 * GB, 32 * GB)),
        ({name.replace("box/", ""): text for name, text in GROUP.items()}, (5 * GB, 8 * GB)),  # inside a container
        ({"/proc/self/cgroup": "1:memory:/old\n"}, (20 * GB, 32 * GB)),
    ],
)
def test_a_control_group_may_allow_less_than_there_is(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], found: tuple[int, int]
) -> None:
    def read(path: Path, *_: object) -> str:
        if str(path) not in files:
            raise FileNotFoundError
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=20 * GB, total=32 * GB))
    assert fit.ram() == found


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that has CUDA, and two GPUs, of which one is too full to be asked."""

    def free(number: int) -> tuple[int, int]:
        if number == 1:
            raise RuntimeError("CUDA error: out of memory")
        return 20 * GB, 24 * GB

    monkeypatch.setattr(importlib.metadata, "version", lambda package: "2.13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda number: SimpleNamespace(name="card", total_memory=24 * GB)
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)


@pytest.mark.usefixtures("cuda")
def test_gpus_are_those_that_torch_sees() -> None:
    assert fit.look().gpus == (Gpu("card", 20 * GB, 24 * GB), Gpu("card", 0, 24 * GB))


@pytest.mark.usefixtures("cuda")
def test_a_torch_that_finds_no_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert fit.look().gpus == ()


def test_a_torch_without_cuda_is_not_imported() -> None:
    if torch.__version__.endswith("+cpu"):
        code = (
            "import sys; from mmgen.checkpoints import fit; assert not fit.look().gpus; "
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
