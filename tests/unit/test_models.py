"""`mmgen models`: what can be loaded, what it takes, what fits; and the same estimate before every load."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, MllamaConfig

from mmgen.checkpoints import catalog, fit
from mmgen.checkpoints.aliases import ALIASES
from mmgen.checkpoints.fit import Machine
from mmgen.cli import INTERRUPTED
from mmgen.outputs.pictures import read_metadata
from tests.support.chat_checkpoints import make_idefics3
from tests.support.checkpoints import make_checkpoint
from tests.support.hub import COMMIT, Hub, serve, write_hollow
from tests.support.scripted import run

LLAMA = "llama-3.2-11b-vision"


def mmgen(
    *arguments: str, home: Path, hub: Hub | None = None, **more: str
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run the command in a process of its own; return what it did, and its processor time in seconds."""
    url = hub.url if hub else "http://127.0.0.1:9"
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "default"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "mmgen", *arguments],
        env={k: v for k, v in os.environ.items() if not k.startswith("HF_")} | ours | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# --- all ----------------------------------------------------------------------------------------------------------


def test_the_models_are_listed_with_what_they_can_do(tmp_path: Path) -> None:
    done, seconds = mmgen("models", home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["NAME", "CAN", "WEIGHTS", "HERE", "LICENCE"]
    assert [line.split()[0] for line in lines] == list(ALIASES)
    (line,) = [line for line in lines if line.startswith(LLAMA)]
    assert line.split("  ", 1)[1].strip() == "caption ask                       21.4 GB  no    Llama 3.2 licence, gated"
    assert seconds < 2


def test_the_list_is_as_wide_as_a_terminal_and_nothing_is_left_out() -> None:
    wide, narrow = run("models"), run("models", terminal=True, COLUMNS="70")
    assert max(map(len, wide.out.splitlines())) > 80
    assert max(map(len, narrow.out.splitlines())) <= 70
    assert sorted(narrow.out.split()) == sorted(wide.out.split())


def test_the_list_is_json_too_and_asks_no_network(tmp_path: Path) -> None:
    with serve(make_checkpoint(tmp_path / "served"), ALIASES["anole-7b"].target) as hub:  # type: ignore[arg-type]
        home = tmp_path / "home"
        done, _ = mmgen("models", "--json", home=home, hub=hub)
        listed = {entry["model"]["name"]: entry for entry in map(json.loads, done.stdout.splitlines())}
        assert not hub.asked
        assert list(listed) == list(ALIASES)
        assert listed["anole-7b"]["can"] == ["caption", "ask", "draw", "vary", "interleave"]
        assert not listed["anole-7b"]["here"]
        assert mmgen("ask", "hello", "-m", "anole-7b", "--max-tokens", "1", home=home, hub=hub)[0].returncode == 0
        assert "yes" in mmgen("models", home=home)[0].stdout.split("anole-7b")[1].splitlines()[0]


def test_a_model_is_fetched_ahead_and_then_needs_no_network(tmp_path: Path) -> None:
    with serve(make_checkpoint(tmp_path / "served")) as hub:
        home = tmp_path / "home"
        assert mmgen("models", "org/tiny", "--pull", home=home, hub=hub)[0].returncode == 0
    done, _ = mmgen("ask", "hello", "-m", "org/tiny", "--max-tokens", "1", "--offline", home=home)
    assert done.returncode == 0, done.stderr
    assert mmgen("models", "--pull", home=home)[0].returncode == 2


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("mmgen draw x -m an", ["anole-7b"]),
        ("mmgen ask --model cham", ["chameleon-7b", "chameleon-30b"]),
        ("mmgen models sm", ["smolvlm", "smolvlm-256m", "smolvlm2-500m"]),
        ("mmgen models ./", []),
    ],
)
def test_the_shell_completes_short_names(tmp_path: Path, words: str, found: list[str]) -> None:
    places = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done, _ = mmgen(home=tmp_path, _MMGEN_COMPLETE="complete_bash", **places)
    assert done.stdout.split() == found


def test_help_ends_with_the_two_examples_that_run_below() -> None:
    said = run("models", "--help").out.rstrip().splitlines()
    assert [line.strip() for line in said[-3:]] == ["Examples:", "$ mmgen models", f"$ mmgen models {LLAMA}"]


# --- one ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eleven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Llama 3.2 Vision 11B as the Hub has it, in five files of full size without content; and the bytes of all."""
    folder = make_checkpoint(tmp_path_factory.mktemp("hub") / "eleven", decoder=False)  # for its tokenizer
    (folder / "model.safetensors").unlink()
    config = MllamaConfig()
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    tensors = {name: ("BF16", tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    weight_map, n_bytes = {}, 0
    for number in range(5):
        file = f"model-{number + 1:05}-of-00005.safetensors"
        shard = {name: tensors[name] for name in sorted(tensors)[number::5]}
        n_bytes += write_hollow(folder / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert 21_200_000_000 < n_bytes < 21_400_000_000
    return folder, n_bytes


@pytest.fixture
def hub(eleven: tuple[Path, int]) -> Iterator[Hub]:
    with serve(eleven[0], ALIASES[LLAMA].target) as running:  # type: ignore[arg-type]
        yield running


def test_a_model_on_the_hub_is_weighed_by_its_headers_alone(hub: Hub, eleven: tuple[Path, int], tmp_path: Path) -> None:
    done, seconds = mmgen("models", LLAMA, "--json", home=tmp_path, hub=hub)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["model"] == {"name": LLAMA, "revision": COMMIT}
    assert told["n_bytes"] == pytest.approx(eleven[1], rel=0.02)
    assert not told["here"]
    ways = {way["flags"]: way for way in told["ways"]}
    assert ways["--dtype bfloat16"]["weights"] == pytest.approx(eleven[1], rel=0.02)
    assert ways["--dtype float32"]["weights"] == pytest.approx(2 * eleven[1], rel=0.02)
    linear = eleven[1] / 2 - 2 * 128_256 * 4096  # all but the head and the table of words, nearly
    assert ways["--quantize 4bit"]["weights"] == pytest.approx(0.5625 * linear + 4 * 128_256 * 4096, rel=0.05)
    for way in told["ways"]:
        assert way["fits"] == (way["n_bytes"] <= told["free"]["memory"] or bool(told["free"]["gpus"]))
    assert seconds < 2
    assert all(asked.range for asked in hub.weights())
    assert sum(asked.n_sent for asked in hub.weights()) < 1_000_000


def test_a_model_is_described_for_people(hub: Hub, tmp_path: Path) -> None:
    done, _ = mmgen("models", LLAMA, home=tmp_path, hub=hub)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{LLAMA} ({ALIASES[LLAMA].target})" in done.stdout
    assert "21.3 GB as BF16" in done.stdout
    assert "no: 21.3 GB to fetch" in done.stdout
    assert "131 MB for 1000 tokens" in done.stdout
    assert "for a picture that is looked at" in done.stdout
    assert "--quantize 4bit" in done.stdout


def test_it_says_which_flags_fit_this_machine(eleven: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(catalog.find(str(eleven[0])), name=LLAMA)
    monkeypatch.setattr(catalog, "find", lambda *_, **__: found)
    for free, fitting in (
        (10**10, ["--quantize 4bit"]),
        (16 * 10**9, ["--quantize 8bit", "--quantize 4bit"]),
        (24 * 10**9, ["--dtype bfloat16 (default)", "--quantize 8bit", "--quantize 4bit"]),
        (10**9, []),
    ):
        monkeypatch.setattr(fit, "look", lambda free=free, **_: Machine(free, 32 * 10**9))
        *table, _, last = run("models", LLAMA).out.splitlines()
        assert f"{free / 1e9:.1f} GB of 32.0 GB of memory, no GPU" in "\n".join(table)
        rows = [line.rsplit("  ", 1) for line in table[-4:]]
        assert [cells.split("  ")[0] for cells, fits in rows if fits == "yes"] == fitting
        flags = "" if not fitting or "default" in fitting[0] else f" {fitting[0]}"
        tried = f"try: mmgen caption photo.jpg -m {LLAMA}{flags}"
        assert last == (tried if fitting else "nothing of this fits here")


def test_a_folder_is_described_with_what_a_picture_takes(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    done, _ = mmgen("models", str(folder), "--json", home=tmp_path)
    told = json.loads(done.stdout)
    assert (told["gives"], told["here"], told["type"]) == (["text", "image"], True, "chameleon")
    assert told["n_bytes"] == catalog.find(str(folder)).n_bytes
    assert told["cache_per_picture"] == 16 * told["cache_per_token"]
    said = mmgen("models", str(folder), home=tmp_path)[0].stdout
    assert "words, pictures" in said
    assert "0.9 million numbers" in said
    assert "--dtype float32 (default)" in said


def test_of_a_model_that_is_here_in_part_the_rest_is_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = catalog.find(str(make_checkpoint(tmp_path / "tiny")))
    in_part = replace(found, missing=("model-00002-of-00002.safetensors",), missing_bytes=5_000_000)
    monkeypatch.setattr(catalog, "find", lambda *_, **__: in_part)
    assert "no: 5 MB to fetch" in run("models", "org/tiny").out


@pytest.mark.parametrize("arguments", [["nosuch"], ["./nowhere"], ["org/none", "--offline"], [LLAMA]])
def test_a_model_that_cannot_be_found_is_an_error(tmp_path: Path, arguments: list[str]) -> None:
    done, seconds = mmgen("models", *arguments, home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert seconds < 2


def test_a_gated_model_says_where_to_ask(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    done, _ = mmgen("models", LLAMA, home=tmp_path, hub=hub)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{hub.url}/{ALIASES[LLAMA].target}" in done.stderr
    assert "hf auth login" in done.stderr


# --- before a load ------------------------------------------------------------------------------------------------


def test_what_cannot_fit_is_refused_before_its_weights_are_fetched(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "served")
    tensors = {name: (tensor.dtype, tensor.shape) for name, tensor in catalog.find(str(folder)).tensors.items()}
    tensors["model.layers.9.mlp.up_proj.weight"] = ("BF16", (2**20, 2**20))
    write_hollow(folder / "model.safetensors", tensors)  # two terabytes
    with serve(folder) as hub:
        draw = ["draw", "a snowman", "-o", str(tmp_path / "a.png"), "-m", "org/tiny"]
        done, seconds = mmgen(*draw, home=tmp_path, hub=hub)
        assert sum(asked.n_sent for asked in hub.weights()) < 1_000_000
        assert (done.returncode, done.stdout) == (1, "")
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: org/tiny takes 2199.7 GB (in bfloat16), and ")
        assert "--no-fit-check" in hint
        assert seconds < 2
        for arguments, more in ((["--no-fit-check"], {}), ([], {"MMGEN_NO_FIT_CHECK": "1"})):
            done, _ = mmgen(*draw, *arguments, home=tmp_path, hub=hub, **more)
            assert "the disk is too full for 2199.0 GB" in done.stderr  # it went on to fetch


def test_what_a_family_refuses_is_refused_before_weights_are_fetched_too(tmp_path: Path) -> None:
    folder = make_idefics3(tmp_path / "served", template=False)
    with serve(folder) as hub:
        hello = ["ask", "hello", "-m", "org/tiny", "--max-tokens", "1"]
        done, _ = mmgen(*hello, home=tmp_path, hub=hub)
        assert (done.returncode, done.stdout) == (1, "")
        assert "template" in done.stderr
        assert [asked.range for asked in hub.weights()] == ["bytes=0-100000"]
        assert mmgen(*hello, "--complete", home=tmp_path, hub=hub)[0].returncode == 0
        hub.asked.clear()
        assert mmgen(*hello, "--complete", "--offline", home=tmp_path, hub=hub)[0].returncode == 0
        assert not hub.asked


def test_the_commit_is_recorded_with_what_it_made(tmp_path: Path) -> None:
    with serve(make_checkpoint(tmp_path / "served")) as hub:
        path = str(tmp_path / "a.png")
        done, _ = mmgen("draw", "a cat", "-m", "org/tiny", "-o", path, "--json", home=tmp_path, hub=hub)
        assert json.loads(done.stdout)["model"] == {"name": "org/tiny", "revision": COMMIT}
        assert (read_metadata(path) or {})["revision"] == COMMIT  # type: ignore[typeddict-item]


def test_a_download_on_the_command_line_is_silent_and_ended_by_ctrl_c(tmp_path: Path) -> None:
    with serve(make_checkpoint(tmp_path / "served")) as hub:
        hub.cuts = 1  # after which the Hub's client waits for a second
        hello = [sys.executable, "-m", "mmgen", "ask", "hello", "-m", "org/tiny"]
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        process = subprocess.Popen(
            hello, env=dict(os.environ) | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while hub.cuts:
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == INTERRUPTED
        assert not list((tmp_path / "hub").rglob("*.incomplete"))
        hub.cuts = 1
        assert mmgen(*hello[3:], home=tmp_path, hub=hub)[0].stderr == ""
