"""The benchmarks' own arithmetic: order of measurement, merging, ratios, shares, targets."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
if not (ROOT / "bench").is_dir():
    pytest.skip("the benchmarks are not part of an installed package", allow_module_level=True)
# Only while bench is imported: the folder fastcv in here must not come before the installed package.
sys.path.insert(0, str(ROOT))

from bench import harness, report, summary, text  # noqa: E402
from bench.gpu.profile import all_workloads  # noqa: E402
from bench.gpu.results import predictions  # noqa: E402
from bench.models import drift_rcnn, yolo_peers, yolo_speed  # noqa: E402
from bench.models.drift_rcnn import drift  # noqa: E402
from bench.workloads import Problem, Target, Variant, Workload  # noqa: E402

sys.path.remove(str(ROOT))

from fastcv.models import yolo  # noqa: E402
from fastcv.models.registry import create_model, save_model  # noqa: E402


def make_workload(**changes):
    settings = {
        "id": "X1",
        "title": "an op",
        "problem": lambda variant: Problem(()),
        "call": lambda op: op(),
        "contenders": {"fastcv": "math:sqrt", "torchvision": "math:sqrt"},
        "variants": (("float32", "contiguous"), ("bfloat16", "channels_last")),
        "targets": {"one thread": Target(ratio=2), "all threads": Target(ratio=3), "cuda": Target(share=0.5)},
    }
    return Workload(**{**settings, **changes})


def test_contenders_take_turns_within_a_workload_and_thread_count():
    cases = harness.list_cases([make_workload(), make_workload(id="X2")], "cpu", (1, 2), repeats=2, full=False)
    order = [(case.workload.id, case.threads, case.repeat, case.contender) for case in cases]
    expected = [
        (workload, threads, repeat, contender)
        for workload in ("X1", "X2")
        for threads in (1, 2)
        for repeat in (0, 1)
        for contender in ("fastcv", "torchvision")
    ]
    assert order == expected


def test_only_the_full_run_has_all_variants():
    def variants(full):
        cases = harness.list_cases([make_workload()], "cpu", (1,), repeats=1, full=full)
        return list(dict.fromkeys((case.variant.dtype, case.variant.layout) for case in cases))

    assert variants(full=False) == [("float32", "contiguous")]
    assert variants(full=True) == [("float32", "contiguous"), ("bfloat16", "channels_last")]


def test_targets_follow_threads_variant_and_device():
    workload = make_workload()
    assert workload.target(Variant(), 1) == Target(ratio=2)
    assert workload.target(Variant(), 2) == Target(ratio=3)
    assert workload.target(Variant("bfloat16", "channels_last"), 2) == Target()
    assert workload.target(Variant("bfloat16", "channels_last", "cuda"), 2) == Target(share=0.5)
    with pytest.raises(ValueError, match="unknown keys"):
        make_workload(targets={"two threads": Target(ratio=1)})


@pytest.mark.parametrize("where", ["no_such_package:op", "math:no_such_function"])
def test_a_missing_contender_is_skipped_with_a_reason(where):
    with pytest.raises(pytest.skip.Exception, match=f"contender {where} is not available"):
        harness.load_contender(where)


class FakeBenchmark:
    """Takes what pytest-benchmark's fixture would."""

    def __init__(self):
        self.extra_info = {}
        self.settings = {}
        self.threads = None

    def pedantic(self, target, args, **settings):
        import torch

        self.settings = settings
        self.threads = torch.get_num_threads()
        target(*args)


def test_a_case_runs_on_its_threads_and_says_what_it_is():
    import torch

    before = torch.get_num_threads()
    workload = make_workload(problem=lambda variant: Problem((), bytes=12), contenders={"fastcv": lambda: lambda: 1.0})
    benchmark = FakeBenchmark()
    harness.run_case(harness.Case(workload, Variant(), 1, 0, "fastcv"), benchmark)
    assert benchmark.threads == 1
    assert torch.get_num_threads() == before
    assert benchmark.extra_info == {
        "workload": "X1",
        "title": "an op",
        "contender": "fastcv",
        "peer": "torchvision",
        "threads": 1,
        "device": "cpu",
        "dtype": "float32",
        "layout": "contiguous",
        "bytes": 12,
        "flops": 0,
        "target": {"ratio": 2},
    }
    assert harness.FEWEST_ROUNDS <= benchmark.settings["rounds"] <= harness.MOST_ROUNDS
    assert benchmark.settings["warmup_rounds"] == 1


def test_contenders_that_disagree_are_not_compared():
    workload = make_workload(contenders={"fastcv": lambda: lambda: 1.0, "torchvision": lambda: lambda: 1.1})
    harness.run_case(harness.Case(workload, Variant(), 1, 0, "fastcv"), FakeBenchmark())
    with pytest.raises(pytest.fail.Exception, match=r"torchvision deviates by 0\.1 "):
        harness.run_case(harness.Case(workload, Variant(), 1, 0, "torchvision"), FakeBenchmark())


def test_deviation_is_relative_and_sees_every_tensor():
    import torch

    expected = (torch.tensor([3.0, 4.0]), [torch.zeros(0), torch.tensor([2, 2])])
    assert harness.deviation(expected, expected) == 0
    assert harness.deviation((torch.tensor([3.0, 4.5]), expected[1]), expected) == pytest.approx(0.1)
    assert harness.deviation((expected[0], [torch.zeros(0), torch.tensor([2, 0])]), expected) == pytest.approx(0.5**0.5)
    assert not harness.deviation(torch.tensor([float("nan"), 4.0]), expected[0]) <= 1e9
    with pytest.raises(pytest.fail.Exception, match="cannot be compared"):
        harness.deviation(torch.zeros(3), torch.zeros(2))


def test_a_dtype_that_a_contender_lacks_is_skipped():
    def no_half():
        raise RuntimeError("\"kernel\" not implemented for 'BFloat16'")

    workload = make_workload(contenders={"torchvision": lambda: no_half})
    with pytest.raises(pytest.skip.Exception, match="torchvision has no bfloat16 on cpu"):
        harness.run_case(harness.Case(workload, Variant("bfloat16"), 1, 0, "torchvision"), FakeBenchmark())


def test_pytest_collects_the_benches_in_turns():
    arguments = ["-c", "pyproject.toml", "--collect-only", "-q", "--device", "cpu", "--repeats", "2", "-k", "A1"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "bench", *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = [line.rpartition("[")[2].rstrip("]") for line in found.stdout.splitlines() if "[A1-" in line]
    assert names, found.stdout + found.stderr
    turns = [name.removeprefix("A1-cpu-float32-contiguous-") for name in names]
    assert turns[:4] == ["1t-0-fastcv", "1t-0-torchvision", "1t-1-fastcv", "1t-1-torchvision"]


def measured(contender, rounds, *, workload="X1", threads=1, **changes):
    info = {
        "workload": workload,
        "title": f"op {workload}, some shape",
        "contender": contender,
        "peer": "torchvision",
        "threads": threads,
        "device": "cpu",
        "dtype": "float32",
        "layout": "contiguous",
        "bytes": 4_000_000,
        "flops": 0,
        "target": {"ratio": 6, "share": 0.5},
        **changes,
    }
    return {"name": f"{workload}-{contender}", "extra_info": info, "stats": {"data": rounds}}


def document(*benches, when="2026-01-01", device="Some CPU, 2 cores"):
    limits = {"1": {"copy": 4e9, "write": 2e9, "gemm_float32": 1e11}, "2": {"copy": 8e9}}
    info = {"device": device, "system": "Linux", "python": "3.12.0", "packages": {"torch": "2.14.1"}, "limits": limits}
    return {"machine_info": info, "datetime": when, "benchmarks": list(benches)}


# Alternating repeats: the median of all five rounds is 0.002, while the mean of the repeats' medians is not.
ONE_RUN = document(
    measured("fastcv", [0.001, 0.002, 0.009]),
    measured("torchvision", [0.010, 0.013]),
    measured("fastcv", [0.002, 0.003]),
    measured("torchvision", [0.012]),
    measured("fastcv", [0.004], threads=2),
    measured("torchvision", [0.016], threads=2),
    measured("fastcv", [3e-6], workload="X2", bytes=0, target={"seconds": 4e-6}),
    measured("fastcv", [0.001], workload="X3", bytes=0, flops=10**8, target={}),
)


def rows_of(*documents, tmp_path):
    paths = []
    for index, one in enumerate(documents):
        paths.append(tmp_path / f"{index}.json")
        paths[-1].write_text(json.dumps(one))
    return {(row.workload, row.contender, row.threads): row for found in summary.load(paths) for row in found.rows}


def test_repeats_merge_by_the_median_of_all_rounds(tmp_path):
    rows = rows_of(ONE_RUN, tmp_path=tmp_path)
    assert len(rows) == 6
    ours, peer = rows["X1", "fastcv", 1], rows["X1", "torchvision", 1]
    assert (ours.seconds, ours.rounds) == (0.002, 5)
    assert (peer.seconds, peer.rounds) == (0.012, 3)
    assert ours.ratio == pytest.approx(6)
    assert peer.ratio == pytest.approx(1)
    assert rows["X1", "fastcv", 2].ratio == pytest.approx(4)
    assert rows["X2", "fastcv", 1].ratio is None


def test_shares_are_of_the_limit_at_that_thread_count(tmp_path):
    rows = rows_of(ONE_RUN, tmp_path=tmp_path)
    assert rows["X1", "fastcv", 1].share == pytest.approx(0.5)  # 4 MB in 2 ms where 4 GB/s go
    assert rows["X1", "fastcv", 2].share == pytest.approx(0.125)
    assert rows["X2", "fastcv", 1].share is None
    assert rows["X3", "fastcv", 1].share == pytest.approx(1)


def test_a_target_is_met_when_all_of_it_is(tmp_path):
    rows = rows_of(ONE_RUN, tmp_path=tmp_path)
    assert rows["X1", "fastcv", 1].met is True
    assert rows["X1", "fastcv", 2].met is False
    assert rows["X1", "torchvision", 1].met is None
    assert rows["X2", "fastcv", 1].met is True
    assert rows["X3", "fastcv", 1].met is None


def test_a_contender_that_failed_in_a_turn_has_no_row(tmp_path):
    """Where its result was right by chance, its time is no comparison."""
    ours, theirs = measured("fastcv", [0.001]), measured("torchvision", [0.010])
    (only,) = rows_of(document(ours, theirs, ours), tmp_path=tmp_path).values()
    assert (only.contender, only.ratio) == ("fastcv", None)


def test_a_ratio_without_a_peer_cannot_be_judged(tmp_path):
    rows = rows_of(document(measured("fastcv", [0.0001])), tmp_path=tmp_path)
    assert rows["X1", "fastcv", 1].met is None


def test_the_newest_run_of_a_workload_counts_and_runs_do_not_mix(tmp_path):
    newer = document(measured("fastcv", [0.001]), measured("torchvision", [0.009]), when="2026-02-01")
    rows = rows_of(newer, ONE_RUN, tmp_path=tmp_path)
    assert rows["X1", "fastcv", 1].ratio == pytest.approx(9)
    assert ("X1", "fastcv", 2) not in rows
    assert ("X2", "fastcv", 1) in rows


def test_the_report_writes_tables_and_plots(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "run.json"
    path.write_text(json.dumps(ONE_RUN))
    assert report.main([str(path), "--output-dir", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| X1 | f32 | fastcv | 1 | 2 ms | 6× | 2 GB/s | 50 % | ≥ 6×, ≥ 50 % | yes |" in page
    assert "| X1 | f32 | fastcv | 2 | 4 ms | 4× | 1 GB/s | 12 % | ≥ 6×, ≥ 50 % | no |" in page
    assert "| X2 | f32 | fastcv | 1 | 3 µs | – | – | – | ≤ 4 µs | yes |" in page
    assert "| X3 | f32 | fastcv | 1 | 1 ms | – | 100 GFLOP/s | 100 % | – | – |" in page
    assert "![" in page
    assert (tmp_path / "out" / "some-cpu-2-cores.png").read_bytes().startswith(b"\x89PNG")
    assert "torchvision" in capsys.readouterr().out


def test_workloads_are_sorted_by_their_numbers():
    names = ["B1-20k", "B1-5k", "G1-16-32", "A1", "G1-4-16", "C1-wide", "C1", "A5-backward", "A5"]
    expected = ["A1", "A5", "A5-backward", "B1-5k", "B1-20k", "C1", "C1-wide", "G1-4-16", "G1-16-32"]
    assert sorted(names, key=summary.place_of) == expected


def test_the_plot_has_no_empty_ends(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from bench import plot

    figures = []
    monkeypatch.setattr(plot.plt, "close", figures.append)
    times = {"fastcv": 0.001, "torchvision": 0.002}
    rows = [measured(who, [time], workload=f"X{n}") for n in range(20) for who, time in times.items()]
    assert plot.plot_ratios(summary.summarize(document(*rows)), tmp_path / "plot.png")
    (axes,) = figures[0].axes
    bars = [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]
    bottom, top = axes.get_ylim()
    assert -1 < top < min(bars)
    assert max(bars) < bottom < max(bars) + 1


def test_the_readme_table_goes_to_stdout_alone(tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(ONE_RUN))
    assert report.main([str(path), "--markdown", "--output-dir", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Some CPU, 2 cores, Linux, Python 3.12.0, torch 2.14.1."
    assert lines[4] == "| X1 | op X1, some shape | 1 | 2 ms | 12 ms | **6×** | 2 GB/s | 50 % | ≥ 6×, ≥ 50 % |"
    assert lines[5] == "|  |  | 2 | 4 ms | 16 ms | **4×** | 1 GB/s | 12 % | ≥ 6×, ≥ 50 % |"
    assert not (tmp_path / "out").exists()


def test_the_report_says_when_there_is_nothing_to_report(tmp_path, capsys):
    assert report.main([str(tmp_path / "gone.json")]) == 2
    assert "gone.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "written"),
    [(1234.5, "1234"), (99.95, "100"), (12.345, "12.3"), (1, "1"), (0.0123, "0.0123"), (0.00042, "0.0004"), (0, "0")],
)
def test_three_digits(value, written):
    assert text.digits(value) == written


def test_predictions_are_of_what_is_measured_on_a_gpu():
    """And workloads have names of their own, by which the profiler finds them."""
    workloads = list(all_workloads())
    known = {
        (workload.id, *variant) for workload in workloads if "cuda" in workload.devices for variant in workload.variants
    }
    assert set(predictions()) <= known
    assert len({workload.id for workload in workloads}) == len(workloads)


def test_limits_are_the_better_of_two_measurements():
    assert summary.higher({"copy": 1.0, "write": 5.0}, {"copy": 2.0, "write": 4.0}) == {"copy": 2.0, "write": 5.0}
    assert text.slug("NVIDIA H200, 1 core") == "nvidia-h200-1-core"


@pytest.mark.parametrize("build", ["yolov3_tiny", "yolov2_tiny"])
@pytest.mark.parametrize("peer", ["OpenCV", "OpenVINO"])
def test_peers_of_yolo_find_the_same(build, peer):
    pytest.importorskip("cv2")
    if peer == "OpenVINO":
        pytest.importorskip("openvino")
        pytest.importorskip("onnx")
    model = yolo_speed.make_model(getattr(yolo, build), 96)
    image = yolo_speed.make_image(96)
    theirs = yolo_peers.CONTENDERS[peer](copy.deepcopy(model), 1)(image)
    boxes, scores, labels = (torch.as_tensor(part) for part in theirs)
    ours = yolo_peers.CONTENDERS["fastcv"](model, 1)(image)
    assert len(scores) == len(ours[1]) > 10
    torch.testing.assert_close(scores.float(), ours[1], rtol=1e-3, atol=1e-5)
    for box, label in zip(boxes.float(), labels, strict=True):  # equal scores may change places
        near = (ours[0] - box).abs().amax(1) < 0.05
        assert (ours[2][near] == label).any()


def test_table_of_yolo(capsys, monkeypatch):
    monkeypatch.delenv("FASTCV_YOLOV3_TINY", raising=False)
    monkeypatch.setattr(yolo_speed, "CONTENDERS", {"fastcv": yolo_peers.fastcv, "gone": missing_contender})
    yolo_speed.main(["--threads", "1", "--rounds", "1", "--size", "64"])
    said = capsys.readouterr()
    rows = [line.split(" | ") for line in said.out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| YOLOv3-tiny, 64²", "| 13 × 13 × 125, 64²"]
    assert all(row[2].endswith(" ms") and row[3].endswith(" %") and row[4] == "– |" for row in rows)
    assert said.err.count("without gone: no such module") == 2


def missing_contender(model, threads):
    raise ImportError("no such module")


def test_drift_of_a_model_that_finds_nothing(tmp_path, monkeypatch, capsys):
    pytest.importorskip("safetensors")
    torch.manual_seed(0)
    model = create_model("maskrcnn_tiny_fpn", names=["circle", "square"], min_size=64, max_size=64)
    save_model(model, tmp_path / "new.safetensors")
    monkeypatch.setattr(drift_rcnn, "HELD_OUT_IMAGES", 2)
    monkeypatch.setattr(sys, "argv", ["drift_rcnn", str(tmp_path / "new.safetensors")])
    drift_rcnn.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" 0 findings")
    assert lines[1].startswith("nothing has a score of 0.5")
    nothing = {"boxes": torch.zeros(0), "scores": torch.zeros(0), "masks": torch.zeros(0), "alone": 3}
    assert drift_rcnn.summary(nothing) == "3 findings without a partner, none with one"


def test_drift_pairs_findings_of_one_label_and_counts_the_others():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60]])
    exact = {"boxes": boxes, "labels": torch.tensor([1, 1, 1]), "scores": torch.tensor([0.9, 0.8, 0.7]),
             "masks": torch.zeros(3, 1, 4, 4)}  # fmt: skip
    moved = {**exact, "boxes": boxes + torch.tensor([0.0, 0, 1, 0]), "labels": torch.tensor([1, 1, 2]),
             "scores": torch.tensor([0.9, 0.75, 0.7]), "masks": torch.ones(3, 1, 4, 4)}  # fmt: skip
    nothing = {name: value[:0] for name, value in exact.items()}
    found = drift([exact, nothing, exact], [moved, nothing, nothing])
    assert found["boxes"].tolist() == [1, 1]
    assert found["scores"].tolist() == pytest.approx([0, 0.05])
    assert found["masks"].tolist() == [1, 1]
    assert found["alone"] == 2 + 3  # the third differs in its label; the last image has lost all three
