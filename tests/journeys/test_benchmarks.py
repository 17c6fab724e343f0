"""The benchmarks run at their smallest, and their baselines draw what mmgen draws. No figures are looked at."""

from __future__ import annotations

import argparse
import json
import threading
import time

import pytest
import torch

from benchmarks import attention, draw, fuzz, gpu, packing, serve, start_up, subject
from benchmarks.baselines import Stock, unmasked
from benchmarks.checkpoints import make_in_memory
from benchmarks.measures import Clock
from benchmarks.windows import energy_test
from mmgen.families.chameleon import Chameleon
from mmgen.request import ImageSampling
from tests.support.near_ties import BOUND, chosen, least_gap


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Chameleon:
    return make_in_memory(tmp_path_factory.mktemp("tiny"), "tiny", torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("static", [False, True])
def test_a_baseline_draws_the_same_where_nothing_is_left_to_chance(
    tiny: Chameleon, static: bool, guidance: float
) -> None:
    own = subject.draw(tiny, 2, ImageSampling(temperature=0, guidance=guidance), 1, seed=1)
    cold = ImageSampling(temperature=1e-6, guidance=guidance)  # `generate` refuses to sample at 0
    request = subject.make_request(1, ImageSampling(temperature=0, guidance=guidance))
    assert least_gap(chosen(tiny, request, own.codes[0])) > BOUND, "a near tie: choose other weights"
    assert Stock(tiny, unmasked(tiny), static=static).draw(2, cold, seed=1).codes == own.codes


def test_fewer_codes_of_a_baseline_are_its_first(tiny: Chameleon) -> None:
    stock = Stock(tiny, unmasked(tiny), static=False)
    whole, few = (stock.draw(2, ImageSampling(), 1, n_codes) for n_codes in (None, 6))
    assert [codes[:6] for codes in whole.codes] == list(few.codes)
    assert few.n_codes == whole.n_codes == 16  # of the seconds: they are scaled


def test_drawing_is_shown_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--pictures", "2", "--guidance", "3", "--windows", "1", "4", "--repeat", "1", "--curve", "1", "2"]
    draw.main(["--model", "tiny", "--device", "cpu", "--baselines", "A", "--baseline-codes", "4", *few])
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert list(found["ways"]) == ["mmgen, step by step", "mmgen, window 4", "A: generate"]
    assert all(any(line.startswith(way) for line in lines) for way in found["ways"])
    for row in found["ways"].values():
        assert row["seconds"] == pytest.approx(sum(row[part] for part in ("prefill", "decode", "vq", "png")))
        assert row["passes"] is None  # of random weights never said
    assert list(found["curve_seconds"]) == ["1", "2"]


def test_what_runs_in_several_threads_is_timed_once() -> None:
    clock, both = Clock(torch.device("cpu")), threading.Barrier(2, timeout=30)

    def wait(seconds: float) -> None:
        both.wait()
        time.sleep(seconds)
        both.wait()

    timed = clock.around(wait)
    other = threading.Thread(target=timed, args=(0.2,))
    started = time.perf_counter()
    other.start()
    timed(0.2)
    other.join()
    assert 0.2 <= clock.seconds <= time.perf_counter() - started


def test_start_up_is_shown_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    start_up.main(["--only", "python", "--repeat", "1"])
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])["commands"]) == {"python"}


def test_requests_of_many_clients_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    serve.requests(70)
    assert "answered right once: 70, wrong or lost: 0" in capsys.readouterr().out


def test_a_part_that_hangs_or_breaks_keeps_what_it_said() -> None:
    said = """import sys; print('{"a": 1}', flush=True); """
    assert gpu.run(["-c", said], 60)["ended"] == "exit code 0"
    for rest, ended in (("sys.exit('why')", "exit code 1"), ("import time; time.sleep(60)", "stopped after 3 s")):
        found = gpu.run(["-c", said + rest], 3)
        assert found["ended"] == ended
        assert found["records"] == [{"a": 1}]


def test_codes_that_part_without_a_tie_fail_a_check(tiny: Chameleon) -> None:
    requests = [subject.make_request(seed) for seed in (1, 2)]
    right = subject.draw_all(tiny, requests, 1).codes
    checks = gpu.Checks(tiny)
    checks.same("the same", requests, right, subject.draw_all(tiny, requests, 4).codes)
    assert checks.failed == 0
    wrong = [right[0], (*right[1][:5], (right[1][5] + 32) % 64, *right[1][6:])]
    checks.same("another", requests, right, wrong)
    assert checks.failed == 1


def test_the_energy_test_sees_a_shift_and_is_even_where_there_is_none() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [list(torch.randn(48, 8, generator=generator)) for _ in range(40)]
    p_values = [energy_test(one, two, 99) for one, two in zip(samples[::2], samples[1::2], strict=True)]
    assert 0.3 < sum(p_values) / 20 < 0.7  # three standard errors of an even spread
    assert energy_test(samples[0], [vector + 0.7 for vector in samples[1]], 99) == 0.01


def test_linear_layers_are_shown_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    packing.main(["--models", "demo", "--repeat", "1"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [each["dtype"] for each in found] == ["torch.bfloat16", "torch.float32"]
    assert all(list(each["tokens"]) == ["1", "2", "4", "8", "16", "64", "256"] for each in found)


def test_attention_asked_twice_is_shown_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    attention.main(["--models", "290m", "--repeat", "1"])
    (found,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(case["rows"], case["keys"]) for case in found["cases"][:2]] == [(1, 16), (1, 32)]
    assert all(case["once_ms"] > 0 and case["twice_ms"] > 0 for case in found["cases"])


def test_damaged_files_are_tried_and_what_is_found_is_said() -> None:
    for kind in ("prompts", "maps"):
        worker = argparse.Namespace(seed=7, scale=0.01, first=0)
        counts, findings = fuzz.run(kind, worker, until=time.time() + 120)
        assert (counts.total(), findings) == (20, [])
        assert min(counts["refused"], counts["result"]) > 0
