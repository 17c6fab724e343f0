"""Finding pictures: each file once, in the order in which people count, and whatever is wrong in its place."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import MmgenError
from mmgen.inputs.finding import Found, NotFoundError, check_file, find, in_natural_order
from mmgen.inputs.lists import read_names
from mmgen.inputs.selection import Selection

ODD = (
    "a b.png",
    "line\nbreak.png",
    'it\'s "so".png',
    "🐈.png",
    "-n.png",
    os.fsdecode(b"\xff\xfe.png"),
    "*.png",
    "[1].png",
)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def names(
    *given: str, recursive: bool = False, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
) -> list[str]:
    """Find pictures; nothing may be wrong."""
    items = list(find(given, Selection(recursive, include, exclude)))
    assert all(isinstance(item, Found) for item in items), items
    return [item.name for item in items]


def wrong(*given: str, selection: Selection | None = None) -> NotFoundError:
    """Find what is wrong, and nothing else."""
    (item,) = find(given, selection or Selection())
    assert isinstance(item, NotFoundError)
    return item


# What is named


def test_named_files_and_addresses_pass_as_they_are() -> None:
    make("a.png", "notes.txt", "sub/.hidden.jpg")
    given = ["sub/.hidden.jpg", "https://example.org/x/cat.jpg?w=10#top", "notes.txt", "./a.png", "HTTP://h/"]
    items = list(find(given))
    assert [item.name for item in items] == given
    below = [item.below for item in items if isinstance(item, Found)]
    assert below == [".hidden.jpg", "cat.jpg", "notes.txt", "a.png", "h"]


@pytest.mark.parametrize(
    "url", ["http://", "http://h/..", "http://u:secret@h", "http://[", "http://h/a%2Fb", "http://h/\0"]
)
def test_an_address_never_gives_a_path_that_leads_elsewhere(url: str) -> None:
    (item,) = find([url])
    assert isinstance(item, Found)
    assert "/" not in item.below
    assert item.below not in ("", ".", "..")
    assert "secret" not in item.below


def test_what_is_not_there_is_an_error_in_its_place() -> None:
    make("a.png", "b.png")
    Path("dangling.png").symlink_to("nowhere")
    os.mkfifo("pipe.png")
    bad = ["none.png", "", "x" * 300, "nul\0.png", "half\ud800.png", "no*.png", "a.png/", "dangling.png", "pipe.png"]
    items = list(find(["a.png", *bad, "b.png"]))
    assert [item.name for item in items] == ["a.png", *bad, "b.png"]
    for name, item in zip(bad, items[1:-1], strict=True):
        assert isinstance(item, NotFoundError)
        assert item.hint
        if name:
            with pytest.raises(MmgenError) as caught:
                check_file(name)
            assert (item.message, item.hint) == (caught.value.message, caught.value.hint)


def test_odd_names_are_found_named_listed_and_by_pattern() -> None:
    make(*(f"odd/{name}" for name in ODD))
    paths = [f"odd/{name}" for name in ODD]
    assert names(*paths) == paths
    assert sorted(names("odd")) == sorted(names("odd/*[g]")) == sorted(paths)


# Each once


def test_a_file_is_found_once_whichever_way_leads_to_it() -> None:
    make("dir/a.jpg", "dir/b.jpg", "c.jpg")
    Path("link").symlink_to("dir")
    here = str(Path.cwd())
    assert names("c.jpg", "./c.jpg", "dir/../c.jpg", f"{here}/c.jpg", "c.jpg", "c.*") == ["c.jpg"]
    assert names("dir", "dir/a.jpg", "link", "link/b.jpg", "dir/") == ["dir/a.jpg", "dir/b.jpg"]
    assert names("dir/b.jpg", ".", recursive=True) == ["dir/b.jpg", "./c.jpg", "./dir/a.jpg"]
    assert len(list(find(["http://h/a.png", "http://h/a.png", "http://h/A.png", "none.png", "none.png"]))) == 3


def test_links_to_a_file_are_files_of_their_own() -> None:
    make("a.jpg")
    Path("hard.jpg").hardlink_to("a.jpg")
    Path("soft.jpg").symlink_to("a.jpg")
    assert names(".") == ["./a.jpg", "./hard.jpg", "./soft.jpg"]


def test_folders_that_lead_back_are_entered_once() -> None:
    n = 9  # of folders that all lead to each other: 9! ways through them
    for i in range(n):
        make(f"top/{i}/a.png")
        Path(f"top/{i}/up").symlink_to("..")
        for j in range(n):
            Path(f"top/{i}/to-{j}").symlink_to(f"../{j}")
    Path("top/itself").symlink_to("itself")
    for found in (names("top", recursive=True), names("top/**/*.png"), names("top/**")):
        assert len(found) == n
        assert len({Path(name).resolve() for name in found}) == n


# Folders


def test_a_folder_gives_its_pictures_then_those_below_as_ls_does() -> None:
    make(
        "p/img10.png",
        "p/img2.JPG",
        "p/IMG1.webp",
        "p/notes.txt",
        "p/.hid.png",
        "p/.git/a.png",
        "p/10/a.gif",
        "p/9/b/c.tif",
    )
    make("p/9/z.avif")
    top = ["p/IMG1.webp", "p/img2.JPG", "p/img10.png"]
    assert names("p") == top
    assert names("p", recursive=True) == [*top, "p/9/z.avif", "p/9/b/c.tif", "p/10/a.gif"]
    assert names("p/.git", "p/.hid.png") == ["p/.git/a.png", "p/.hid.png"]
    below = [item.below for item in find(["p/", "p/9"], Selection(recursive=True)) if isinstance(item, Found)]
    assert below == ["IMG1.webp", "img2.JPG", "img10.png", "9/z.avif", "9/b/c.tif", "10/a.gif"]


def test_patterns_choose_among_what_a_folder_has() -> None:
    make("p/a.jpg", "p/a.txt", "p/B.JPG", "p/c.png", "p/raw.dat", "p/thumbs/a.jpg", "p/x/thumbs/a.jpg", "p/x/d.jpg")
    assert names("p", include=("*.jpg",)) == ["p/a.jpg", "p/B.JPG"]
    assert names("p", include=("a*",)) == ["p/a.jpg"]  # not the text beside it
    assert names("p", include=("a*", "*.dat")) == ["p/a.jpg", "p/raw.dat"]
    assert names("p", include=("*.jpg",), exclude=("b*",)) == ["p/a.jpg"]
    assert names("p", recursive=True, include=("*.jpg",), exclude=("thumbs/",)) == ["p/a.jpg", "p/B.JPG", "p/x/d.jpg"]
    assert names("p", recursive=True, include=("x/*",)) == ["p/x/d.jpg"]
    assert names("p", recursive=True, include=("x/**",)) == ["p/x/d.jpg", "p/x/thumbs/a.jpg"]
    assert names("p", recursive=True, exclude=("**/thumbs/*", "*.png")) == ["p/a.jpg", "p/B.JPG", "p/x/d.jpg"]
    assert names("p/raw.dat", include=("*.jpg",), exclude=("*",)) == ["p/raw.dat"]  # it was named


def test_a_folder_without_pictures_is_an_error_that_says_where_they_are() -> None:
    make("empty/notes.txt", "deep/x/y/a.png")
    assert wrong("empty").message == "no pictures in empty"
    assert "jpg" in wrong("empty").hint
    assert "-r" in wrong("deep").hint
    assert "--include" in wrong("deep", selection=Selection(recursive=True, include=("*.jpg",))).hint
    items = list(find(["deep/x/y", "empty", "deep/x/y", "deep/x/y/a.png"]))
    assert [type(item) for item in items] == [Found, NotFoundError]  # a second time is not an error


def test_what_only_looks_like_a_picture_comes_along_without_blocking() -> None:
    make("p/a.png")
    os.mkfifo("p/pipe.png")
    Path("p/dangling.png").symlink_to("nowhere")
    Path("p/itself.png").symlink_to("itself.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("p/socket.png")
    Path("p/folder.png").mkdir()
    assert names("p") == [f"p/{name}.png" for name in ("a", "dangling", "itself", "pipe", "socket")]
    for name in names("p")[1:]:
        with pytest.raises(MmgenError):
            check_file(name)


@contextmanager
def without_rights() -> Iterator[None]:
    """Be somebody whom permissions bind."""
    if os.geteuid() != 0:
        yield
        return
    Path().chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_an_error_and_on_it_goes() -> None:
    make("p/1.png", "p/a/2.png", "p/b/3.png", "p/c/4.png", "last.png")
    Path("p/b").chmod(0)
    with without_rights():
        for given in ("p", "p/**/*.png"):
            items = list(find([given, "last.png"], Selection(recursive=True)))
            assert [item.name for item in items] == ["p/1.png", "p/a/2.png", "p/b", "p/c/4.png", "last.png"]
            assert [isinstance(item, Found) for item in items] == [True, True, False, True, True]
        assert wrong("p/b").message == "cannot open folder p/b: permission denied"
    Path("p/b").chmod(0o755)


def test_folders_deeper_than_python_calls_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    depth = 1100
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    make("a.png")
    monkeypatch.chdir(tmp_path)
    assert names("d", recursive=True) == ["d/" * depth + "a.png"]
    subprocess.run(["rm", "-r", "d"], check=True)


# Patterns


@pytest.mark.parametrize(
    "pattern", ["*.png", "p/*", "p/?.png", "p/[ab]*", "*/*.png", "./p/*.png", "p//*.png", "p/.h*", "../*/p/a.png"]
)
def test_a_pattern_gives_what_the_shell_makes_of_it(pattern: str) -> None:
    make("z.png", "p/a.png", "p/b.png", "p/B10.png", "p/b9.png", "p/note.txt", "p/.h.png", "p/sub/c.png", "q/a.png")
    expanded = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {pattern}"], capture_output=True, check=True
    ).stdout.decode()
    matches = expanded.split("\0")[:-1]
    assert matches != [pattern]
    assert sorted(names(pattern)) == sorted(names(*matches))


def test_a_pattern_is_one_only_where_no_file_is_called_so() -> None:
    make("a[1].png", "a1.png", "*.png", "d[2]/x.png", "d2/y.png")
    assert names("a[1].png") == ["a[1].png"]
    assert names("*.png") == ["*.png"]
    assert names("d[2]/*.png") == ["d[2]/x.png"]


def test_stars_reach_any_depth_and_leave_hidden_ones_out() -> None:
    make("p/a.png", "p/x/b.png", "p/x/y/c.png", "p/.h/d.png", "p/x/.e.png", "p/x/f.txt")
    assert names("p/**/*.png") == names("p/**/*.png", "p/**") == ["p/a.png", "p/x/b.png", "p/x/y/c.png"]
    assert names("p/**") == ["p/a.png", "p/x/b.png", "p/x/y/c.png"]
    assert names("p/**/y/*.png") == ["p/x/y/c.png"]
    os.chdir("p")
    assert names("**") == names("**/*.png") == ["a.png", "x/b.png", "x/y/c.png"]


def test_below_counts_from_where_the_pattern_begins_and_never_upwards() -> None:
    make("p/2023/a.png", "p/2024/b/c.png", "d.png")
    found = [*find(["p/*/*.png"]), *find(["p/20*"], Selection(recursive=True)), *find(["p/*/../../d.png", "p/*/../.."])]
    below = [item.below for item in found if isinstance(item, Found)]
    assert below == ["2023/a.png", "2023/a.png", "2024/b/c.png", "d.png"]


def test_a_pattern_that_matches_nothing_is_an_error_and_one_with_an_empty_folder_is_not() -> None:
    make("p/1/a.png", "p/2/notes.txt", "empty/x/notes.txt")
    assert names("p/*") == ["p/1/a.png"]
    for pattern in ("*.png", "nowhere/*.png", "empty/*", "p/1/a.png/*"):
        assert wrong(pattern).message == f"no such file: {pattern}"
        assert wrong(pattern).hint == "nothing matches the pattern"


# Order

NAMES = st.lists(st.text(st.sampled_from("aAbß019. -_") | st.characters(), max_size=8))


def counted(name: str) -> list[tuple[int, int]]:
    """Read a name sign by sign: a number stands where digits do among signs, and counts as one."""
    signs: list[tuple[int, int]] = []
    before = ""
    for sign in name.casefold():
        if sign in "0123456789":
            if before and before in "0123456789":
                signs[-1] = (ord("0"), signs[-1][1] * 10 + int(sign))
            else:
                signs.append((ord("0"), int(sign)))
        else:
            signs.append((ord(sign), 0))
        before = sign
    return signs


@given(NAMES)
def test_natural_order_is_that_of_the_numbers_in_names(given_names: list[str]) -> None:
    expected = sorted(given_names, key=lambda name: (counted(name), name))
    assert in_natural_order(given_names) == in_natural_order(reversed(given_names)) == expected


def test_numbers_of_any_length_are_compared() -> None:
    long = "9" * 5000
    assert in_natural_order([f"a1{long}", f"a{long}", "a10", "A2", "a02"]) == [
        "A2",
        "a02",
        "a10",
        f"a{long}",
        f"a1{long}",
    ]


# Many


@pytest.mark.slow
def test_a_hundred_thousand_paths_need_little_memory_and_the_first_comes_at_once() -> None:
    n_folders, n_files = 100, 1000
    for folder in range(n_folders):
        make(f"many/{folder}/0.png")
        for file in range(1, n_files):  # links take less work than files
            os.link(f"many/{folder}/0.png", f"many/{folder}/{file}.png")
    scandir, listed = os.scandir, []
    with mock.patch.object(os, "scandir", lambda folder: listed.append(folder) or scandir(folder)):
        items = find(["many", "many/7/*.png"], Selection(recursive=True))
        first = next(items)
        assert len(listed) == 2
        tracemalloc.start()
        try:
            last, n_found = first, 1
            for item in items:
                last, n_found = item, n_found + 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (first, last) == (Found("many/0/0.png", "0/0.png"), Found("many/99/999.png", "99/999.png"))
    assert n_found == n_folders * n_files
    assert peak < 25e6  # the paths alone would be as much again
    subprocess.run(["rm", "-r", "many"], check=True)


# Lists

LINES = st.lists(st.binary(min_size=1, max_size=12).filter(lambda name: not {b"\n"[0], 0} & {*name}), max_size=20)


@settings(deadline=None)
@given(names=st.lists(st.binary(min_size=1, max_size=12).filter(lambda name: 0 not in name), max_size=20))
def test_a_list_with_nul_gives_back_any_names(names: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "list"
    for end in (b"", b"\0"):
        path.write_bytes(b"\0".join(names) + end)
        assert list(map(os.fsencode, read_names(str(path), null=True))) == names


@settings(deadline=None)
@given(LINES.filter(lambda names: not any(name.endswith(b"\r") for name in names)), st.sampled_from([b"\n", b"\r\n"]))
def test_a_list_of_lines_gives_back_names_without_line_ends(names: list[bytes], end: bytes) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + end.join([*names, b"", b""])))
    with mock.patch.object(sys, "stdin", stdin):
        assert list(map(os.fsencode, read_names("-"))) == names


def test_a_pipe_is_read_as_it_comes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin, mock.patch.object(sys, "stdin", io.TextIOWrapper(stdin)):
        found = read_names("-")
        os.write(writing, b"a.png\nb.p")
        assert next(found) == "a.png"
        os.write(writing, b"ng\n")
        assert next(found) == "b.png"
        os.close(writing)
        assert list(found) == []


def test_a_long_list_is_read_whole() -> None:
    paths = [f"folder {i}/picture {i}.png" for i in range(20_000)]
    Path("list").write_text("\n".join(paths))
    assert list(read_names("list")) == paths


@pytest.mark.parametrize(("source", "null"), [("none", False), (".", False), ("zeros", False), ("lines", True)])
def test_what_is_no_list_is_an_error(source: str, null: bool) -> None:
    Path("zeros").write_bytes(bytes(1_000_000))
    Path("lines").write_text("a.png\n" * 50_000)
    with pytest.raises(MmgenError, match=source) as caught:
        list(read_names(source, null=null))
    assert caught.value.hint
