"""The journal of a batch, cut, killed, filled to the brim, fought over, and looked things up in."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from PIL import Image

from mmgen.errors import MmgenError, UsageError
from mmgen.outputs.journal import Journal, State
from mmgen.outputs.records import key_of

A, B, C = key_of("a"), key_of("b"), key_of("c")
ODD = "caf\udce9 \U0001f426\n\"'.png"  # a file's name that is not UTF-8, among other things


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """What a journal holds, read in the plainest way: of each place the last record, where it stands."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines():
        try:
            each = json.loads(line)
            place = each["place"]
        except (ValueError, KeyError, TypeError):
            continue
        found.pop(place, None)
        found[place] = each
    yield from found.values()


def record(key: str, place: str, **result: object) -> dict[str, Any]:
    return {"command": "caption", "key": key, "place": place, **(result or {"text": "a snowman"})}


def written(path: Path, *records: Mapping[str, Any]) -> Path:
    """A journal with these records."""
    with Journal(path) as journal:
        for each in records:
            journal.append(each)
    return path


def states(path: Path, **keys: str) -> list[State]:
    """How the items of these places, each with its key, stand."""
    with Journal(path) as journal:
        return [journal.state(key, place) for place, key in keys.items()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "captions.jsonl"


# Keys

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(plain, plain)
def test_a_key_is_the_same_for_what_is_the_same_and_for_nothing_else(one: object, other: object) -> None:
    assert key_of("x", one) == key_of("x", json.loads(json.dumps(one)))
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (key_of(one) == key_of(other)) is same


def test_a_key_is_32_hex_digits_whatever_the_order_of_settings_and_the_letters_of_a_name() -> None:
    key = key_of({"seed": 7, "top_p": 0.9}, ODD)
    assert len(key) == 32
    assert int(key, 16)
    assert key == key_of({"top_p": 0.9, "seed": 7}, ODD)
    assert key_of("ab", "c") != key_of("a", "bc")


# Looking up


def test_an_item_is_new_until_its_result_is_there(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.state(A, "1.png") == "new"
        journal.append(record(A, "1.png"))
        assert journal.state(A, "1.png") == "done"
    assert states(path, **{"1.png": A}) == ["done"]


def test_an_item_that_failed_is_failed_until_it_is_done(path: Path) -> None:
    written(path, record(A, "x", error="out of memory"))
    assert states(path, x=A) == ["failed"]
    written(path, record(A, "x"))
    assert states(path, x=A) == ["done"]


def test_another_key_makes_a_place_stale(path: Path) -> None:
    written(path, record(A, "x"), record(B, "y", error="empty"))
    assert states(path, x=C, y=C, z=C) == ["stale", "stale", "new"]


def test_a_result_of_another_place_is_taken_over(path: Path) -> None:
    written(path, record(A, "x"), record(B, "y"), record(C, "z", error="empty"))
    assert states(path, renamed=A, y=A) == ["copy", "copy"]
    assert states(path, renamed=C) == ["new"]  # an error is no result
    with Journal(path) as journal:
        assert journal.result(A) == record(A, "x")


def test_a_result_is_read_back_as_it_was_written(path: Path) -> None:
    given = record(A, ODD, text="\u2028 ë 雪だるま\n", parts=[{"text": "a"}], seconds=0.25)
    with Journal(path) as journal:
        journal.append(record(B, "before"))
        journal.append(given)
        journal.append(record(C, "after"))
        assert journal.result(A) == given
    with Journal(path) as journal:
        assert journal.result(A) == given
    assert list(read_records(path))[1] == given


def test_lines_are_readable_text_unless_a_name_is_not(path: Path) -> None:
    written(path, record(A, "雪.png"))
    assert "雪.png" in path.read_text(encoding="utf-8")
    written(path, record(A, ODD))
    assert [json.loads(line)["place"] for line in path.read_bytes().splitlines()] == ["雪.png", ODD]


def test_the_seed_that_was_drawn_is_the_first_ones(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.drawn_seed is None
        journal.append(record(A, "x"))
        journal.append(record(B, "y") | {"drawn_seed": 7})
        journal.append(record(C, "z") | {"drawn_seed": 8})
        assert journal.drawn_seed == 7
    with Journal(path) as journal:
        assert journal.drawn_seed == 7


# Files that were read before


def test_a_file_whose_size_and_time_are_known_is_not_read(tmp_path: Path, path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"snow")
    before = file.stat()
    with Journal(path) as journal:
        entry = journal.file_entry(str(file))
        journal.append(record(A, "x") | {"files": [entry]})
    file.write_bytes(b"fire")  # behind its back
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with Journal(path) as journal:
        assert journal.file_entry(str(file)) == entry


def test_a_file_that_was_touched_is_read_again_and_is_the_same(tmp_path: Path, path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"snow")
    with Journal(path) as journal:
        digest = journal.file_entry(str(file))["sha256"]
        os.utime(file, ns=(1, 1))
        assert journal.file_entry(str(file))["sha256"] == digest
        file.write_bytes(b"fire")
        os.utime(file, ns=(2, 2))
        assert journal.file_entry(str(file))["sha256"] != digest


def test_a_digest_is_that_of_sha256sum(tmp_path: Path, path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(random.Random(0).randbytes(300_000))
    said = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    with Journal(path) as journal:
        assert journal.file_entry(str(file))["sha256"] == said
        assert journal.file_entry(os.path.relpath(file))["path"] == str(Path.cwd() / os.path.relpath(file))


def test_a_file_that_cannot_be_read_is_an_error_and_a_pipe_does_not_block(tmp_path: Path, path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with Journal(path) as journal:
        for name, message in {
            "none.png": "no such file|cannot read",
            "pipe": "not a regular file",
            ".": "folder",
        }.items():
            with pytest.raises(MmgenError, match=message):
                journal.file_entry(str(tmp_path / name))


# Lines that were replaced


def test_of_the_lines_of_a_place_the_last_one_counts_and_all_stay(path: Path) -> None:
    lines = [record(A, "x", error="1"), record(B, "y"), record(A, "z"), record(A, "x", error="2"), record(A, "x")]
    written(path, *lines)
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines
    last = [record(B, "y"), record(A, "z"), record(A, "x")]
    assert list(read_records(path)) == last
    with Journal(path) as journal:
        assert list(journal.records()) == last
        assert journal.result(A) == record(A, "x")
        assert journal.state(A, "x") == "done"


def test_a_run_that_does_nothing_leaves_the_file_as_it_is(path: Path) -> None:
    before = written(path, record(A, "x"), record(B, "y")).stat()
    written(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_permissions_a_link_and_lines_of_others_stay(tmp_path: Path, path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere.jsonl")
    written(path, record(A, "x", error="1"))
    path.chmod(0o640)
    with path.open("a") as file:
        file.write("# a note of the user's\n")
    written(path, record(A, "x"))
    assert path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text().splitlines()[1] == "# a note of the user's"
    assert states(path, x=A) == ["done"]


def test_a_journal_in_which_nothing_was_written_is_not_left_behind(path: Path) -> None:
    written(path)
    assert not path.exists()
    path.touch()
    written(path)
    assert path.exists()  # that one is the user's


@pytest.mark.parametrize("other", [None, "edited\n"])
def test_a_journal_that_is_taken_away_meanwhile_is_an_error_and_not_silence(path: Path, other: str | None) -> None:
    with Journal(path) as journal:
        journal.append(record(A, "x", error="1"))
        journal.append(record(A, "x"))
        path.rename(path.with_suffix(".old"))
        if other is not None:
            path.write_text(other)
        with pytest.raises(MmgenError, match="removed or replaced"):
            journal.append(record(B, "y"))
    assert (path.read_text() if path.exists() else None) == other
    assert len(list(read_records(path.with_suffix(".old")))) == 1


# Cut off


@pytest.mark.parametrize("before", [[], [record(B, "y"), record(C, "z", error="broken")]], ids=["only", "last"])
def test_cut_at_every_byte_of_its_last_line_it_opens_and_goes_on(path: Path, before: list[dict[str, Any]]) -> None:
    start = written(path, *before).read_bytes() if before else b""
    whole = written(path, record(A, ODD)).read_bytes()
    for end in range(len(start), len(whole) + 1):
        path.write_bytes(whole[:end])
        seen = list(read_records(path))
        is_whole = end >= len(whole) - 1  # nothing but the end of the line is missing
        assert seen == before + [record(A, ODD)] * is_whole
        with Journal(path) as journal:
            assert list(journal.records()) == seen
            assert journal.state(A, ODD) == ("done" if is_whole else "new")
            journal.append(record(A, "more"))
        assert path.read_bytes().startswith(whole if is_whole else start)
        assert list(read_records(path)) == [*seen, record(A, "more")]


def test_damaged_lines_in_the_middle_are_passed_over(path: Path) -> None:
    lines = [json.dumps(record(key, key)).encode() for key in (A, B)]
    damaged = [b"\0" * 99, b"{", b'{"key": 1, "place": "x"}', b"[" * 99_999, b'{"a":' * 99_999, b"\xff\xfe", b"", b"7"]
    path.write_bytes(b"\n".join([*damaged, lines[0], *damaged, lines[1]]) + b"\n")
    with Journal(path) as journal:
        assert [each["key"] for each in journal.records()] == [A, B]
        assert journal.result(B)["place"] == B


# Files that are no journals


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"a\nb\n",
        b"{\n",
        b'{"key": "x", "place": "y"}\n',
        b'{"command": "caption", "model": {"name": "demo"}, "text": "a snowman", "seed": 1}\n' * 3,
        b'{"command": "caption", "text": "a snow',
        b"[]",
        b"\0\0\0\0",
        b"\n",
        b'[{"role": "user", "content": "hi"}]',
        b"x\n" * 10_000,
        "picture",
    ],
)
def test_another_file_is_refused_and_left_as_it_is(path: Path, data: bytes | str) -> None:
    if isinstance(data, str):
        Image.effect_noise((64, 64), 99).save(path, "PNG")
    else:
        path.write_bytes(data)
    before, data = path.stat(), path.read_bytes()
    with pytest.raises(UsageError, match="not the journal"), Journal(path):
        pass
    assert path.read_bytes() == data
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_folder_a_pipe_and_a_place_that_is_not_there_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in {".": "is a folder", "pipe": "not a regular file"}.items():
        with pytest.raises(UsageError, match=message), Journal(tmp_path / name):
            pass
    with pytest.raises(MmgenError, match="no such folder"), Journal(tmp_path / "none" / "a.jsonl"):
        pass
    with pytest.raises(MmgenError, match="cannot write"), Journal("/proc/a.jsonl"):
        pass


def test_a_record_without_key_or_place_is_a_bug(path: Path) -> None:
    with Journal(path) as journal:
        for bad in ({"key": A}, {"place": "x"}, {"key": "short", "place": "x"}, {"key": A, "place": 1}):
            with pytest.raises((KeyError, TypeError)):
                journal.append(bad)


# Any history


class History(RuleBasedStateMachine):
    """Whatever is done to a journal, it answers as a list of its lines would."""

    places, keys = ("x", "y", ODD), (A, B, C)

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.jsonl"
        self.lines: list[dict[str, Any]] = []
        self.journal = Journal(self.path).__enter__()

    def last(self, place: str) -> dict[str, Any] | None:
        return next((line for line in reversed(self.lines) if line["place"] == place), None)

    def killed(self, size: int | None = None) -> None:
        """Go on from the file as it is, or as far as it came: all that a process leaves that is killed."""
        data = self.path.read_bytes()
        self.journal.__exit__(None, None, None)
        self.path.write_bytes(data[:size])
        self.journal = Journal(self.path).__enter__()

    @rule(place=st.sampled_from(places), key=st.sampled_from(keys), fails=st.booleans(), text=st.text(max_size=9))
    def append(self, place: str, key: str, fails: bool, text: str) -> None:
        self.lines.append(record(key, place, **{"error" if fails else "text": text}))
        self.journal.append(self.lines[-1])

    @rule()
    def end(self) -> None:
        self.journal.__exit__(None, None, None)
        self.journal = Journal(self.path).__enter__()

    @rule()
    def crash(self) -> None:
        self.killed()

    @precondition(lambda self: self.lines)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        n_bytes = data.draw(st.integers(1, len(self.path.read_bytes().splitlines(keepends=True)[-1])))
        self.killed(self.path.stat().st_size - n_bytes)
        if n_bytes > 1:
            self.lines.pop()

    @invariant()
    def answers_as_its_lines_do(self) -> None:
        done = {line["key"] for line in self.lines if "error" not in line}
        for place in self.places:
            line = self.last(place)
            for key in self.keys:
                state = "new" if line is None else "stale"
                if line is not None and line["key"] == key:
                    state = "failed" if "error" in line else "done"
                elif key in done:
                    state = "copy"
                assert self.journal.state(key, place) == state
        for key in done:
            assert self.journal.result(key) in self.lines
            assert self.journal.result(key)["key"] == key
        last = [line for line in self.lines if self.last(line["place"]) is line]
        assert list(self.journal.records()) == list(read_records(self.path)) == last

    def teardown(self) -> None:
        self.journal.__exit__(None, None, None)
        shutil.rmtree(self.folder)


TestHistory = History.TestCase
TestHistory.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


# Killed, fought over, full

WRITER = """
import itertools, os, sys
from mmgen.outputs.journal import Journal
from mmgen.outputs.records import key_of
os.write(1, b"-1\\n")
with Journal(sys.argv[1]) as journal:
    for n in itertools.count(int(sys.argv[2])):
        journal.append({"key": key_of(n), "place": f"place {n % 40}", "line": n, "text": "x" * (n % 700)})
        os.write(1, b"%d\\n" % n)
"""


def writer(path: Path, first: int = 0) -> subprocess.Popen[bytes]:
    """A process that appends for ever, and says of each record when it is there; before the first, -1."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)], stdout=subprocess.PIPE)


def test_killed_at_any_moment_it_loses_nothing_that_was_there(path: Path) -> None:
    moments = random.Random(4)
    n = 0
    for _ in range(30):
        with writer(path, first=n) as process:
            assert process.stdout
            said = [process.stdout.readline() for _ in range(moments.choice([1, 2, 40, 300]))]
            process.kill()
            said += process.stdout.readlines()
        there = [int(line) for line in said if line.endswith(b"\n")]
        *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
        for line in lines:
            json.loads(line)
        last = {each["place"]: each["line"] for each in read_records(path)} if path.exists() else {}
        for each in range(n, max(there) + 1):
            assert last[f"place {each % 40}"] >= each
        n = max([n - 1, *there, *last.values()]) + 1
    with Journal(path) as journal:
        assert sorted(each["line"] for each in journal.records()) == list(range(n - 40, n))
    assert len(list(read_records(path))) == 40
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_second_run_is_refused_while_the_first_lives(path: Path) -> None:
    with writer(path) as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.readline()
        with pytest.raises(UsageError, match="another run is writing") as caught, Journal(path):
            pass
        assert "wait" in caught.value.hint
        assert next(read_records(path))["place"]  # but it can be looked at
        process.send_signal(signal.SIGKILL)
    with Journal(path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_it_goes_without(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(fd: int, *, blocking: bool = True) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("filelock.lock_descriptor", fail)
    written(path, record(A, "x", error="1"), record(A, "x"))
    half = path.with_name(".mmgen-1-abcdefgh")  # perhaps somebody writes it still
    half.touch()
    assert states(path, x=A) == ["done"]
    assert half.exists()


def test_threads_look_things_up_while_it_is_written(path: Path) -> None:
    with Journal(path) as journal, ThreadPoolExecutor(4) as threads:
        for n in range(300):
            journal.append(record(key_of(n), f"{n}", text="x" * (n * 37 % 9000)))

        def look(n: int) -> bool:
            last = journal.last(f"{n % 300}")
            return last is not None and last["place"] == f"{n % 300}"

        found = threads.map(look, range(3000))
        for n in range(300, 600):
            journal.append(record(key_of(n), f"{n}"))
        assert all(found)
    assert [each["place"] for each in read_records(path)] == [str(n) for n in range(600)]


def test_a_file_at_its_limit_keeps_what_is_whole(path: Path) -> None:
    """A limit on a file's size (setrlimit(2)) fails as a full disk does: a part is written, then nothing."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));sys.argv[2:] = ['0'];" + WRITER
    )
    code = f"exec({code!r})"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "cannot write" in done.stderr
    n_done = int(done.stdout.split()[-1]) + 1
    assert path.read_bytes().endswith(b"\n")
    assert [each["line"] for each in read_records(path)] == list(range(max(0, n_done - 40), n_done))
    assert path.stat().st_size > 4000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(path: Path) -> Iterator[int]:
    """Append until there is no room, and count."""
    with Journal(path) as journal:
        for n in itertools.count():
            journal.append(record(key_of(n), f"{n % 50}", text="x" * 500))
            yield n + 1


def test_a_full_disk_stops_it_with_nothing_torn_and_room_lets_it_go_on(small_disk: Path) -> None:
    path = small_disk / "a.jsonl"
    seen: list[int] = []
    with pytest.raises(MmgenError, match="no space left") as caught:
        seen.extend(fill(path))
    n = seen[-1]
    assert "what is done is kept" in caught.value.hint
    data = path.read_bytes()
    assert data.endswith(b"\n")
    assert len(data.splitlines()) == n
    with Journal(path) as journal:
        assert journal.state(key_of(n - 1), f"{(n - 1) % 50}") == "done"
        with pytest.raises(MmgenError, match="no space left"):
            journal.append(record(A, "more", text="x" * 5000))
        assert path.read_bytes() == data
    os.truncate(path, len(data) // 3)
    with Journal(path) as journal:
        journal.append(record(A, "more", text="x" * 5000))
    assert len(list(read_records(path))) <= 51
    assert [each.name for each in small_disk.iterdir()] == ["a.jsonl"]


# Many lines


@pytest.mark.timeout(600)  # every allocation is counted: slow on a machine that is busy
def test_100_000_lines_cost_less_than_60_mb(path: Path) -> None:
    with path.open("w") as file:
        for n in range(100_000):
            entry = {"path": f"/a/{n}.jpg", "size": 9, "mtime_ns": n, "sha256": f"{n:064x}"}
            file.write(json.dumps(record(f"{n:032x}", f"{n}.jpg") | {"files": [entry]}) + "\n")
    tracemalloc.start()
    try:
        with Journal(path) as journal:
            _, peak = tracemalloc.get_traced_memory()
            assert journal.state(f"{99_999:032x}", "99999.jpg") == "done"
            assert journal.result(f"{50_000:032x}")["place"] == "50000.jpg"
    finally:
        tracemalloc.stop()
    assert peak < 60e6, f"{peak / 1e6:.1f} MB"
