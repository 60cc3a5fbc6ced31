"""``fastcv predict``: what a detector finds in images, folders, videos and cameras."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from fastcv.cli.detector import classes_of, load_detector, set_score
from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_device, check_output
from fastcv.cli.photo import save_png
from fastcv.cli.results import Results, check_apart
from fastcv.data.sources import Frame, find_sources, read_ahead
from fastcv.detections import Detections, names_of
from fastcv.slicing import predict_sliced

console = Console(highlight=False)

Detector = Callable[[list[Tensor]], list[dict[str, Tensor]]]


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Images, folders, patterns ('shots/**/*.jpg'), videos, a camera (0)."),
    ],
    weights: Annotated[Path, typer.Option(help="Weights: .safetensors, .pth, or Darknet's .weights.")],
    model: Annotated[
        str | None, typer.Option(help="Model, such as yolov3-tiny, for weights that do not say which they belong to.")
    ] = None,
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score. Default: 0.5, or the model's own for YOLO.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Only these classes, such as person,tie.")] = None,
    save_dir: Annotated[Path | None, typer.Option(help="Folder for the pictures with what is found.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="PNG file for the picture of one image. Default: detections.png.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the results, as COCO's.")] = None,
    crop_dir: Annotated[Path | None, typer.Option(help="Folder for the objects, cut out.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="A line per image: name, number of objects, classes, between tabs.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=32, max=4096, help="Shorter side after resizing; not for YOLO.")
    ] = None,
    slice_size: Annotated[
        int | None, typer.Option("--slice", min=32, help="Look at large images in tiles of this size.")
    ] = None,
    overlap: Annotated[float, typer.Option(min=0, max=0.9, help="Share that neighbouring tiles overlap.")] = 0.2,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Images, or tiles, at once.")] = 1,
    frames: Annotated[int | None, typer.Option(min=1, help="Most frames of a video or camera.")] = None,
    stretch: Annotated[
        bool, typer.Option("--stretch", help="Spread the values of images of more than 8 bits, from least to most.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda, or a GPU such as cuda:1.")] = "cpu",
) -> None:
    """Detect objects in images and draw them, write them as JSON, or cut them out."""
    place = check_device(device)
    found, faults = find_sources(sources)
    if not found:
        fail("; ".join(faults))
    is_single = len(found) == 1 and found[0].kind == "image" and not faults
    if output is None and is_single and not (save_dir or json_file or crop_dir or quiet):
        output = Path("detections.png")
    if output is not None and not is_single:
        fail(f"--output {output} is for one image: use --save-dir for several")
    read = [str(weights), *(source.path for source in found if source.kind != "camera")]
    for path, option, suffix in ((output, "--output", ".png"), (json_file, "--json", "")):
        if path is not None:
            check_output(path, option, suffix)
            check_apart(path, option, read)
    detector = load_detector(model, weights, size, place)
    least, names = set_score(detector, score), names_of(detector)
    labels = classes_of(classes, names)
    results = Results(save_dir, crop_dir, json_file, found)
    run = _Run(detector, least, labels, results, output, quiet, is_single, faults)
    reader = read_ahead(found, ahead=max(4, 2 * batch), frames=frames, stretch=stretch)
    detect = _sliced(detector, slice_size, overlap, batch) if slice_size is not None else detector
    length = None if any(source.kind != "image" for source in found) else len(found)
    try:
        with _progress(length, quiet or is_single) as advance:
            while taken := list(islice(reader, 1 if slice_size is not None else batch)):
                run.look(detect, taken, place)
                advance(len(taken))
        results.finish(names)
    finally:
        reader.close()
        results.writer.close()
    run.report()


def _sliced(model: Any, size: int, overlap: float, batch: int) -> Detector:
    return lambda images: [
        predict_sliced(model, image, size, overlap, batch=batch, mask_threshold=0.5) for image in images
    ]


class _Run:
    """Images one after the other, and what is said about them."""

    def __init__(
        self,
        detector: Any,
        least: float,
        labels: Any,
        results: Results,
        output: Path | None,
        quiet: bool,
        is_single: bool,
        faults: list[str],
    ) -> None:
        self.detector, self.least, self.labels = detector, least, labels
        self.results, self.output, self.quiet, self.is_single = results, output, quiet, is_single
        self.images, self.bad, self.counts = 0, 0, Counter[str]()
        for fault in faults:
            self._is_bad(fault)

    def look(self, model: Detector, frames: list[Frame], device: torch.device) -> None:
        """Detect in a batch."""
        good = []
        for frame in frames:
            if frame.pixels is None:
                self._is_bad(_message(frame))
            else:
                good.append((frame, frame.pixels.to(device).float().div_(255)))
        start = time.perf_counter()
        found: list[Any] = []
        with torch.inference_mode():
            try:
                found = model([pixels for _, pixels in good]) if good else []
            except ValueError:  # one of them does not suit the model: which?
                for frame, pixels in good:
                    try:
                        found += model([pixels])
                    except ValueError as error:
                        found.append(None)
                        self._is_bad(f"{frame.name}: {reason(error)}")
        seconds = (time.perf_counter() - start) / max(1, len(good))
        for (frame, _), one in zip(good, found, strict=True):
            if one is not None:
                self._add(frame, one, seconds)

    def _add(self, frame: Frame, one: dict[str, Tensor], seconds: float) -> None:
        try:
            found = Detections.from_model(one, self.detector, score=self.least, image=frame.image).cpu()
        except ValueError as error:  # such as boxes of NaN, of a model whose training went wrong
            self._is_bad(f"{frame.name}: {reason(error)}")
            return
        if self.labels is not None:
            found = found.filter(labels=self.labels)
        drawn = self.results.add(frame, found)
        self.images += 1
        self.counts.update(found.class_names)
        number = f"{len(found)} object{'' if len(found) == 1 else 's'}"
        if self.quiet:
            _say(f"{shown(frame.name)}\t{len(found)}\t{found.summary()}")
        elif self.is_single:
            if self.output is not None:
                save_png(found.plot(), self.output)
            _say(f"{shown(str(self.output or drawn or frame.name))}: {number} in {seconds:.2f} s")
            if len(found):
                console.print(table_of(found))
        else:
            where = "" if drawn is None else f" -> {shown(str(drawn))}"
            what = found.summary() if len(found) else "nothing"
            _say(f"{shown(frame.name)}{where}: {what} ({1000 * seconds:.0f} ms)")

    def _is_bad(self, message: str) -> None:
        if self.is_single:
            fail(message)
        self.bad += 1
        print(f"fastcv: {shown(message)}", file=sys.stderr)

    def report(self) -> None:
        """Say what was found in all, and end with status 1 if something could not be read."""
        if not self.quiet and not self.is_single:
            listed = ", ".join(f"{count} {name}" for name, count in self.counts.most_common())
            total = self.counts.total()
            _say(
                f"{self.images} image{'' if self.images == 1 else 's'}, "
                f"{total} object{'' if total == 1 else 's'}{': ' * bool(listed)}{listed}"
            )
        if self.bad:
            print(f"fastcv: {self.bad} could not be read", file=sys.stderr)
            raise typer.Exit(1)


def _message(frame: Frame) -> str:
    error = frame.error
    assert error is not None
    if isinstance(error, OSError) and error.strerror:
        return f"{frame.name}: {error.strerror}"
    return reason(error)


def shown(text: str) -> str:
    """Return a name in one line that any terminal prints."""
    encoding = sys.stdout.encoding or "utf-8"
    printable = text.encode(encoding, "backslashreplace").decode(encoding)
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in printable)


def _say(line: str) -> None:
    print(line)  # rich would turn tabs into spaces


def table_of(found: Detections) -> Table:
    """Return a table of the detections."""
    rows = Table(box=None, pad_edge=False)
    rows.add_column("object")
    for heading in ("score", "x1", "y1", "x2", "y2"):
        rows.add_column(heading, justify="right")
    assert found.scores is not None
    for name, score, box in zip(found.class_names, found.scores.tolist(), found.boxes.tolist(), strict=True):
        rows.add_row(name, f"{score:.2f}", *(f"{corner:.0f}" for corner in box))
    return rows


@contextmanager
def _progress(length: int | None, is_off: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar during the block, on a terminal, and yield a function to call with the number of images done."""
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_off = is_off or not console.is_terminal
    redirect = sys.stderr.isatty()  # above the bar; a file gets its errors still
    with Progress(*columns, console=console, transient=True, disable=is_off, redirect_stderr=redirect) as progress:
        task = progress.add_task("predicting", total=length)
        yield lambda count: progress.update(task, advance=count)
