"""``fastcv val``: how well a model does on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_device
from fastcv.cli.run_options import (
    RunOptions,
    ValOptions,
    check_fits,
    first_label_of,
    fitting_options,
    make_model,
    make_task,
    model_name,
    names_for,
    open_data,
    option_pairs,
    read_options,
)
from fastcv.engine import evaluate, processes, reports

console = Console(highlight=False)


def val(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A data set: of COCO, Pascal VOC or YOLO, a folder of point clouds, or the name of a generator."
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights, such as runs/MODEL/best.safetensors.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, if the weights do not say theirs.")] = None,
    split: Annotated[str | None, typer.Option(help="Part of the data. Default: val.")] = None,
    size: Annotated[int | None, typer.Option(help="Length of the images' shorter side in the model.")] = None,
    data_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the reader of the data.")
    ] = None,
    model_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the model's builder.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Samples per pass. Default: 4.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load samples. Default: 0.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1. Default: auto.")] = None,
    amp: Annotated[bool | None, typer.Option("--amp/--no-amp", help="Half precision.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a training: its best weights on its validation data.")
    ] = None,
    options: Annotated[Path | None, typer.Option(help="YAML with options, as --output gets it.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for metrics.json, plots and options.yaml.")] = None,
) -> None:
    """Evaluate a model on a data set: COCO's average precisions, mean IoU, or accuracy."""
    given = {
        "data": data, "split": split, "data_options": option_pairs(data_option, "--data-option"), "model": model,
        "weights": None if weights is None else str(weights), "size": size,
        "model_options": option_pairs(model_option, "--model-option"), "batch": batch, "workers": workers,
        "device": device, "amp": amp,
    }  # fmt: skip
    given = (_of_run(resume) if resume is not None else {}) | {k: v for k, v in given.items() if v is not None}
    chosen: ValOptions = read_options(ValOptions, options, given)
    if not chosen.data:
        fail("DATA is missing: a data set to evaluate on")
    if not chosen.weights:
        fail("--weights is missing: the weights to evaluate")
    if chosen.device != "auto":
        check_device(chosen.device)
    if output is not None:
        _prepare(output, chosen)
    name = model_name(chosen.model, chosen.weights)
    held_out = open_data(chosen.data, chosen.split, first_label_of(name), chosen.data_options)
    check_fits(name, held_out, chosen.data, chosen)
    network = make_model(chosen, name, names_for(name, held_out), fitting=fitting_options(name, held_out))
    task = make_task(network)
    try:
        with _progress() as on_batch:
            records, metrics = evaluate(
                task, network, held_out, batch=chosen.batch, workers=chosen.workers, device=chosen.device,
                amp=chosen.amp, on_batch=on_batch,
            )  # fmt: skip
    except (ValueError, ImportError) as error:
        fail(reason(error))
    if processes.rank():
        return
    console.print(f"{chosen.weights} on {chosen.data} ({chosen.split}, {len(held_out)} samples)", soft_wrap=True)
    for table in tables(metrics):
        console.print(table)
    if output is not None:
        from fastcv.engine import plots

        reports.write_json(metrics, output / "metrics.json")
        if plots.can_plot():
            task.plot(records, output)


def _of_run(path: Path) -> dict[str, Any]:
    """Return the options with which a training was evaluated."""
    if not path.exists():
        fail(f"--resume: there is no training {path}")
    folder = path if path.is_dir() else path.parent
    run: RunOptions = read_options(RunOptions, folder / "options.yaml", {})
    best = folder / "best.safetensors"
    given = {
        "data": run.validation if run.validation not in (None, "none") else run.data, "data_options": run.data_options,
        "model": run.model, "weights": str(best if best.exists() else folder / "last.safetensors"),
        "batch": run.batch, "workers": run.workers, "device": run.device, "amp": run.amp,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _prepare(output: Path, options: ValOptions) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        options.write_yaml(output / "options.yaml")
    except OSError as error:
        fail(f"cannot write to {output}: {reason(error)}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluating")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def tables(metrics: Mapping[str, float]) -> list[Table]:
    """Return the metrics as tables: all of a kind in a column; classes in rows."""
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in metrics if name.count("/") == 1)) or [""]
    made = []
    whole = Table(box=None, pad_edge=False)
    whole.add_column("metric")
    rows: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.count("/") < 2:
            kind, _, short = name.rpartition("/")
            rows.setdefault(short, {})[kind] = value
    for kind in kinds:
        whole.add_column(kind or "value", justify="right")
    for short, values in rows.items():
        whole.add_row(short, *(_number(values.get(kind)) for kind in kinds))
    made.append(whole)
    by_class: dict[str, dict[str, float]] = {}
    columns: dict[str, None] = {}
    for name, value in metrics.items():
        if name.count("/") >= 2:
            kind, short, label = name.split("/", 2)
            column = kind if short == "class" else f"{kind}/{short}"
            columns[column] = None
            by_class.setdefault(label, {})[column] = value
    if by_class:
        table = Table(box=None, pad_edge=False)
        table.add_column("class")
        for column in columns:
            table.add_column(column, justify="right")
        for label, values in by_class.items():
            table.add_row(label, *(_number(values.get(column)) for column in columns))
        made.append(table)
    return made


def _number(value: float | None) -> str:
    return "" if value is None else "–" if value < 0 or value != value else f"{value:.3f}"
