"""Files as people keep them: links, modes, words of their own, sidecars of two pictures, tables, batches with seeds."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from mmgen import files
from mmgen.errors import UsageError
from mmgen.inputs.placeholders import expand
from mmgen.inputs.prompts import PromptLine, read_prompts
from mmgen.request import ImageSampling, TextSampling
from tests.support.scripted import Scripted, install, run


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """A scripted model, in a folder with two pictures."""
    monkeypatch.chdir(tmp_path)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(name)
    return install(monkeypatch)


# One way out


def test_a_link_stays_a_link_and_a_mode_stays(model: Scripted) -> None:
    Path("real").mkdir()
    Path("real/words.txt").write_text("old")
    Path("real/words.txt").chmod(0o600)
    Path("a.txt").symlink_to("real/words.txt")
    assert run("caption", "a.png", "--sidecar", "--existing", "overwrite", "--jsonl", "j.jsonl").code == 0
    assert Path("a.txt").is_symlink()
    assert Path("real/words.txt").read_text() == "A snowman.\n"
    assert stat.S_IMODE(Path("real/words.txt").stat().st_mode) == 0o600
    assert not list(Path().rglob(".mmgen*"))


@pytest.mark.parametrize("with_journal", [True, False])
def test_a_sidecar_of_another_picture_is_never_replaced(model: Scripted, with_journal: bool) -> None:
    journal = ("--jsonl", "j.jsonl") if with_journal else ()
    run("caption", "a.png", "--sidecar", *journal)
    Path("a.txt").write_text("A snowman.\n")
    Image.new("RGB", (8, 8), "green").save("a.jpg")
    model.scripts = [["something else"]]
    run("caption", "a.jpg", "--sidecar", *journal)
    assert Path("a.txt").read_text() == "A snowman.\n"
    assert run("caption", "a.jpg", "--sidecar", "--sidecar-name", "name", *journal).code == 0
    assert Path("a.jpg.txt").is_file()


def test_a_picture_that_was_moved_keeps_its_sidecar(model: Scripted) -> None:
    both = ("--sidecar", "--outdir", "words", "--jsonl", "j.jsonl")
    Path("one").mkdir()
    Path("a.png").rename("one/a.png")
    assert run("caption", "one", *both).code == 0
    Path("one").rename("two")
    assert run("caption", "two", *both, "--prompt", "what is it?").code == 0
    assert json.loads(Path("j.jsonl").read_text().splitlines()[-1])["image"] == "two/a.png"


@pytest.mark.parametrize(("way", "expected"), [("append", "my cat A snowman.\n"), ("prepend", "A snowman. my cat\n")])
def test_words_are_added_once_to_what_a_person_wrote(model: Scripted, way: str, expected: str) -> None:
    Path("a.txt").write_text("my cat\n")
    command = ("caption", ".", "--sidecar", "--existing", way, "--jsonl", "j.jsonl")
    for _ in range(2):
        assert run(*command).code == 0
        assert (Path("a.txt").read_text(), Path("b.txt").read_text()) == (expected, "A snowman.\n")
    Path("a.txt").write_text("my cat\n")  # as if killed before it could be added
    n_asked = len(model.requests)
    assert run(*command).code == 0
    assert Path("a.txt").read_text() == expected
    assert len(model.requests) == n_asked
    Path("a.txt").write_text("edited")
    run(*command)
    assert Path("a.txt").read_text() == "edited"


def test_words_are_added_behind_what_stands_between(model: Scripted) -> None:
    Path("a.txt").write_text("my cat")
    command = ("caption", "a.png", "--sidecar", "--existing", "append", "--prefix", ", ")
    assert run(*command).code == 2  # nothing would know what was added
    assert run(*command, "--jsonl", "j.jsonl").code == 0
    assert Path("a.txt").read_text() == "my cat, A snowman.\n"


def test_xmp_beside_a_picture_describes_it(model: Scripted) -> None:
    model.scripts = [["<b> & “c”"]]
    assert run("caption", "a.png", "--sidecar", "--xmp").code == 0
    tree = ElementTree.fromstring(Path("a.xmp").read_text("utf-8"))
    rdf = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
    [words] = tree.findall(f".//{{http://purl.org/dc/elements/1.1/}}description/{rdf}Alt/{rdf}li")
    assert words.text == "<b> & “c”"
    assert words.get("{http://www.w3.org/XML/1998/namespace}lang") == "x-default"


def test_lines_have_names_and_nuls_as_asked(model: Scripted) -> None:
    assert run("caption", "a.png").out == "A snowman.\n"
    for flag in ("-H", "--with-name"):
        assert run("caption", "a.png", flag).out == "a.png\tA snowman.\n"
    Path("a.png").rename("a\nb.png")
    assert run("caption", ".", "--print0").out == "./a\nb.png\tA snowman.\0./b.png\tA snowman.\0"
    assert run("caption", ".").out == "./a?b.png\tA snowman.\n./b.png\tA snowman.\n"


# Placeholders


def test_placeholders_stand_for_a_picture_and_what_lies_beside_it(tmp_path: Path) -> None:
    picture = tmp_path / "cats" / "a.b.png"
    picture.parent.mkdir()
    picture.with_suffix(".txt").write_bytes("\ufeffein Kätzchen\r\n".encode("utf-16"))
    picture.with_suffix(".json").write_text('{"tags": ["x", 2], "a": {"b": 1.5}, "s": "{stem}"}')
    text = "{stem}|{name}|{folder}|{caption}|{json.tags}|{json.a.b}|{json.s}|{other}|{}|{{stem}}"
    expected = "a.b|a.b.png|cats|ein Kätzchen|x, 2|1.5|{stem}|{other}|{}|{a.b}"
    assert expand(text, str(picture)).replace("\ufeff", "") == expected
    assert expand("{stem} {name}", "https://a.b/c/d.png?e={name}") == "d d.png"


@pytest.mark.parametrize("prompt", ["{caption}", "{json.a}", "{json.s.t}"])
def test_what_is_not_there_is_an_error_of_its_picture(model: Scripted, prompt: str) -> None:
    Path("b.txt").write_text("b")
    Path("b.json").write_text('{"a": "b", "s": {"t": "b"}}')
    result = run("caption", ".", "--prompt", prompt, "--jsonl", "j.jsonl")
    assert result.code == 1
    assert [request.parts[1] for request in model.requests] == ["b"]
    assert "1 done, 0 skipped, 1 failed" in result.err


def test_a_prefix_is_checked_before_the_model_is_asked(model: Scripted) -> None:
    assert run("caption", "a.png", "--sidecar", "--prefix", "{caption} ").code == 1
    assert not model.requests
    assert run("caption", "a.png", "--sidecar", "--prefix", "{stem}: ").code == 0
    assert Path("a.txt").read_text() == "a: A snowman.\n"


def test_a_prefix_that_runs_into_the_words_has_a_note_and_stands_in_the_record(model: Scripted) -> None:
    command = ("caption", "a.png", "--sidecar", "--jsonl", "j.jsonl", "--suffix", "!")
    assert 'note: --prefix "sks" ends in a letter' in run(*command, "--prefix", "sks").err
    assert Path("a.txt").read_text() == "sksA snowman.!\n"
    assert "ends in a letter" not in run(*command, "--prefix", "sks, ").err
    records = [json.loads(line) for line in Path("j.jsonl").read_text().splitlines()]
    assert [(record["prefix"], record["suffix"]) for record in records] == [("sks", "!"), ("sks, ", "!")]


# Lists of prompts


def lines(path: Path, **ways: bool) -> list[PromptLine | str]:
    return [getattr(line, "message", line) for _, line in read_prompts(str(path), **ways)]


def test_comments_are_passed_over_if_asked(tmp_path: Path, model: Scripted) -> None:
    path = tmp_path / "p.txt"
    path.write_text("# a list\na cat\n#1 fan\n")
    assert [line.text for line in lines(path, comments=True) if isinstance(line, PromptLine)] == ["a cat"]
    assert len(lines(path)) == 3
    run("draw", "--prompts", str(path), "--comments", "-o", "out/")
    assert [request.parts for request in model.requests] == [("a cat",)]
    assert run("draw", "a", "--comments").code == 2


def test_a_table_is_read_by_its_header_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,prompt,seed,n,guidance,negative_prompt\n"
        b'1,"a cat, red\nand big",7,2,1.5,\n2,,,,,\n3,a dog,-1,,,\n4,a cow,,,,blur\n'
    )
    found = lines(path)
    assert isinstance(found[0], PromptLine)
    assert (found[0].text, found[0].seed, found[0].n) == ("a cat, red\nand big", 7, 2)
    assert found[0].sampling == {"guidance": 1.5}
    assert found[1] == "no prompt"
    assert "seed -1" in str(found[2])
    assert isinstance(found[3], PromptLine)
    assert found[3].sampling == {"negative_prompt": "blur"}
    path.write_text("a red cat\na blue dog\n")
    with pytest.raises(Exception, match="no column called prompt"):
        lines(path)


def test_a_line_says_how_it_is_drawn(model: Scripted) -> None:
    rows = [
        {"prompt": "a", "n": 2, "guidance": 1, "temperature": 0.5, "negative_prompt": "b", "ratio": "2:1"},
        {"prompt": "c"},
        {"prompt": "d", "guidance": -1},
        {"prompt": "e", "guidance": "much"},
        {"prompt": "f", "n": 0},
    ]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("draw", "--prompts", "p.jsonl", "-o", "out/", "--seed", "7", "--top-k", "5")
    assert result.code == 1
    assert [error.split(":")[1] for error in result.err.splitlines() if error.startswith("error")] == [
        " line 3", " line 4", " line 5"
    ]  # fmt: skip
    own = ImageSampling(temperature=0.5, guidance=1, negative_prompt="b", ratio="2:1", top_k=5)
    plain = ImageSampling(top_k=5)
    assert [(request.parts, request.seed, request.image) for request in model.requests] == [
        (("a",), 7, own), (("a",), 8, own), (("c",), 7, plain)
    ]  # fmt: skip


def test_a_line_of_a_question_has_a_temperature_and_no_guidance(model: Scripted) -> None:
    Path("p.jsonl").write_text('{"prompt": "a", "temperature": 0.5}\n{"prompt": "b", "guidance": 2}\n')
    assert run("ask", "--prompts", "p.jsonl").code == 1
    assert [request.text for request in model.requests] == [TextSampling(temperature=0.5)]


# Batches


def test_many_of_one_prompt_into_a_folder_go_on_where_they_stopped(model: Scripted) -> None:
    command = ("draw", "a cat", "-n", "5", "-o", "out/")
    assert run(*command, "--limit", "2").code == 0
    first = {path.name: path.read_bytes() for path in Path("out").glob("*.png")}
    assert len(first) == 2
    result = run(*command)
    assert (result.code, result.out.count("\n")) == (0, 3)
    assert "3 done, 2 skipped, 0 failed" in result.err
    assert first.items() <= {path.name: path.read_bytes() for path in Path("out").glob("*.png")}.items()
    assert run(*command).out == ""
    assert len(model.requests) == 5


def test_another_seed_than_the_batchs_is_said_and_needs_force(model: Scripted) -> None:
    command = ("draw", "a cat", "-n", "2", "-o", "out/{n}.png", "--jsonl", "j.jsonl")
    run(*command, "--seed", "7")
    result = run(*command, "--seed", "17")
    assert result.code == 2
    assert result.err.splitlines()[0] == "error: this batch has the seed 7"
    assert run(*command, "--seed", "17", "-f").code == 0
    assert run(*command, "--seed", "17").code == 0
    assert [request.seed for request in model.requests] == [7, 8, 17, 18]


def test_a_batch_with_a_drawn_seed_says_it_too(model: Scripted) -> None:
    command = ("draw", "a cat", "-n", "2", "-o", "out/")
    run(*command)
    seed = model.requests[0].seed
    assert run(*command, "--seed", str(seed)).code == 0
    assert f"seed {seed}" in run(*command, "--seed", str(seed + 1)).err


def test_two_stories_never_go_into_one_folder_at_once(model: Scripted) -> None:
    with files.claimed(Path("story")):
        result = run("interleave", "tell", "-o", "story")
        assert (result.code, result.err.splitlines()[0]) == (2, "error: another run is writing into story")
    assert not Path("story").exists()  # as nothing was put in
    assert run("interleave", "tell", "-o", "story").code == 0
    with files.claimed(Path("story")), pytest.raises(UsageError), files.claimed(Path("story")):
        pass
    assert Path("story/index.md").is_file()


# System calls that may be refused

_REFUSING = """
import errno, os, sys
def refuse(*arguments, **named): raise OSError(errno.{errno}, os.strerror(errno.{errno}))
{what}
from mmgen.__main__ import run
sys.argv = ["mmgen", *sys.argv[1:]]
sys.exit(run())
"""


@pytest.mark.parametrize(
    ("what", "errno", "note"),
    [
        ("import fcntl; fcntl.flock = refuse", "ENOLCK", "note: this file system has no locks"),
        ("os.fsync = refuse", "EINVAL", "note: this file system does not tell"),
        ("os.fchmod = os.chmod = refuse", "EPERM", ""),
        ("os.link = refuse", "EPERM", ""),
    ],
)
def test_niceties_that_a_file_system_refuses_are_done_without(tmp_path: Path, what: str, errno: str, note: str) -> None:
    script = _REFUSING.format(what=what, errno=errno)
    (tmp_path / "out").mkdir()
    for words in (["draw", "a snowman", "-n", "2", "-o", "out/", "--seed", "1"], ["caption", "out", "--sidecar"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert done.stderr.count(note or "note: this file system") == bool(note)
    assert len(list(tmp_path.glob("out/*.txt"))) == len(list(tmp_path.glob("out/*.png"))) == 2
    assert not list(tmp_path.rglob(".mmgen*"))


def test_a_disk_that_fails_is_no_nicety(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _REFUSING.format(what="os.fsync = refuse", errno="EIO"), "draw", "a", "-o", "a.png"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("error: cannot write a.png: ")
    assert not list(tmp_path.iterdir())


# What is said at the end, and meanwhile


def test_the_last_line_says_what_kinds_of_errors_there_were(model: Scripted) -> None:
    for name in ("c.png", "d.png", "e.png"):
        Path(name).write_text("no picture")
    Image.effect_noise((64, 64), 80).save("f.png")
    Path("f.png").write_bytes(Path("f.png").read_bytes()[:1000])
    Path("list.txt").write_text("a.png\nc.png\nd.png\ne.png\nf.png\nno.png\nnone.png\n")
    result = run("caption", "--files-from", "list.txt", "--jsonl", "j.jsonl")
    assert result.code == 1
    last = result.err.splitlines()[-1]
    assert last.startswith(
        "1 done, 0 skipped, 6 failed (3 not a picture that can be read, 2 no such file, 1 broken) in "
    )


def test_many_drawings_are_shown_as_one_batch_with_an_end(model: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgen.outputs.terminal._PROGRESS_SECONDS", 0)
    result = run("draw", "a cat", "-n", "20", "--seed", "7", "-o", "out/", terminal=True)
    assert result.code == 0
    assert "5 of 20, " in result.err
    assert " left" in result.err
    assert "picture 1" not in result.err
