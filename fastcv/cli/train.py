"""``fastcv train``: trains a model on a data set, and writes weights, metrics and plots."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fastcv.cli.errors import fail, is_out_of_memory, reason
from fastcv.cli.options import check_device
from fastcv.cli.recipes import with_recipe
from fastcv.cli.run_options import (
    AUGMENTS,
    CLOUD_AUGMENTS,
    RunOptions,
    check_fits,
    first_label_of,
    fitting_options,
    is_of_clouds,
    make_model,
    make_task,
    model_name,
    names_for,
    open_data,
    option_pairs,
    read_options,
)
from fastcv.engine import Progress, Trainer, TrainingError, processes
from fastcv.engine.memory import keep_freed_memory
from fastcv.engine.yaml_options import OptionError, read_values

console = Console(highlight=False)

DATA = "A data set: of COCO, Pascal VOC or YOLO, a folder of point clouds, or the name of a generator."
PAIR = "NAME=VALUE"


def what(help: str, *names: str, **more: Any) -> Any:
    """Return an option about what is trained."""
    return typer.Option(*names, help=help, rich_help_panel="What is trained", **more)


def how(help: str, *names: str, **more: Any) -> Any:
    """Return an option about how it is trained."""
    return typer.Option(*names, help=help, rich_help_panel="How it is trained", **more)


def where(help: str, *names: str, **more: Any) -> Any:
    """Return an option about the run."""
    return typer.Option(*names, help=help, rich_help_panel="The run", **more)


def train(
    data: Annotated[str | None, typer.Argument(help=DATA, show_default=False)] = None,
    model: Annotated[str | None, what("Model, such as maskrcnn_tiny_fpn.")] = None,
    weights: Annotated[Path | None, what("Weights to start from.")] = None,
    new_head: Annotated[bool | None, what("Other classes than those of the weights.", "--new-head")] = None,
    validation: Annotated[str | None, what("Data to evaluate on, or none. Default: the split val of DATA.")] = None,
    size: Annotated[int | None, what("Length of the images' shorter side in the model.")] = None,
    augment: Annotated[str | None, what("none, flip, strong, mosaic; of clouds none, turn, strong.")] = None,
    data_option: Annotated[list[str] | None, what("For the reader of the data.", metavar=PAIR)] = None,
    model_option: Annotated[list[str] | None, what("For the model's builder.", metavar=PAIR)] = None,
    epochs: Annotated[int | None, how("How often each sample is seen. Default: 20, or the model's.")] = None,
    steps: Annotated[int | None, how("Steps, in place of epochs.")] = None,
    batch: Annotated[int | None, how("Samples per pass. Default: 4, or the model's.")] = None,
    accumulate: Annotated[int | None, how("Passes per step. Default: 1.")] = None,
    optimizer: Annotated[str | None, how("adamw or sgd. Default: adamw.")] = None,
    lr: Annotated[float | None, how("Largest learning rate. Default: 0.001, or the model's.")] = None,
    rate: Annotated[list[str] | None, how("Lower rate of a part, such as backbone=0.1.", metavar="PART=FACTOR")] = None,
    freeze: Annotated[list[str] | None, how("Part that is not trained, such as backbone.", metavar="PART")] = None,
    schedule: Annotated[str | None, how("cosine, step, one-cycle or constant. Default: cosine.")] = None,
    warmup: Annotated[float | None, how("Part of the steps in which the rate rises. Default: 0.05.")] = None,
    weight_decay: Annotated[float | None, how("Default: 0.01.")] = None,
    clip: Annotated[float | None, how("Largest norm of the gradient, 0 for any. Default: 5.")] = None,
    amp: Annotated[bool | None, how("Half precision.", "--amp/--no-amp")] = None,
    ema: Annotated[float | None, how("Decay of the average of the weights, such as 0.999. Default: 0, none.")] = None,
    evaluate_every: Annotated[
        int | None, how("Epochs between evaluations, 0 for none but the last. Default: 1.")
    ] = None,
    patience: Annotated[int | None, how("Stop after so many evaluations without a better one.")] = None,
    seed: Annotated[int | None, how("Of all random numbers. Default: 0.")] = None,
    output: Annotated[Path | None, where("Folder for what is written. Default: runs/MODEL.")] = None,
    resume: Annotated[Path | None, where("Training to go on with: its folder.")] = None,
    options: Annotated[Path | None, where("YAML with options, such as a run's options.yaml.")] = None,
    device: Annotated[str | None, where("auto, cpu, cuda or cuda:1. Default: auto.")] = None,
    workers: Annotated[int | None, where("Processes that load samples. Default: 0.")] = None,
    save_steps: Annotated[int | None, where("Steps between checkpoints, besides each epoch's.")] = None,
    quiet: Annotated[bool, where("No progress.", "--quiet", "-q")] = False,
) -> None:
    """Train a model on a data set; --resume goes on after whatever has stopped it, to the same bits."""
    given = {
        "data": data, "validation": validation, "data_options": option_pairs(data_option, "--data-option"),
        "model": model, "weights": None if weights is None else str(weights), "new_head": new_head, "size": size,
        "model_options": option_pairs(model_option, "--model-option"), "augment": augment, "epochs": epochs,
        "steps": steps, "batch": batch, "accumulate": accumulate, "optimizer": optimizer, "learning_rate": lr,
        "learning_rates": option_pairs(rate, "--rate"), "freeze": freeze or None, "schedule": schedule,
        "warmup": warmup, "weight_decay": weight_decay, "clip": clip, "amp": amp, "ema": ema,
        "evaluate_every": evaluate_every, "patience": patience, "seed": seed, "device": device,
        "workers": workers, "save_steps": save_steps,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    last = None if resume is None else _checkpoint(resume)
    if last is not None and options is None:
        options = last.with_name("options.yaml")
    given = _with_recipe(given, options)
    chosen: RunOptions = read_options(RunOptions, options, given)
    if not chosen.data:
        fail("DATA is missing: a data set to train on")
    if chosen.device != "auto":
        check_device(chosen.device)
    name = model_name(chosen.model, chosen.weights)
    folder = output or (last.parent if last is not None else _free_folder(name))
    if last is None and (folder / "last.pt").exists():
        fail(f"{folder} holds a training already: --resume {folder} goes on with it; or name another --output")
    made = _check_folder(folder)
    keep_freed_memory()
    try:
        _run(_make_trainer(chosen, name, folder, quiet), last, folder)
    finally:
        for empty in made:  # nothing was written: the next run gets the name
            with suppress(OSError):
                empty.rmdir()


def _with_recipe(given: dict[str, Any], options: Path | None) -> dict[str, Any]:
    """Return the options of the command with those of the model's recipe that neither it nor its file has."""
    written: Any = {}
    if options is not None:
        with suppress(OptionError):  # said when the options are read
            written = read_values(options)
    if not isinstance(written, dict):
        written = {}
    stated = {**written, **given}
    if not stated.get("data") or not (stated.get("model") or stated.get("weights")):
        return given
    found = with_recipe(model_name(stated.get("model"), stated.get("weights")), stated["data"], stated)
    return {option: value for option, value in found.items() if option in given or option not in written}


def _checkpoint(path: Path) -> Path:
    file = path / "last.pt" if path.is_dir() else path
    if not file.is_file():
        fail(f"--resume: there is no checkpoint {file}")
    return file


def _free_folder(name: str) -> Path:
    folder, number = Path("runs", name), 2
    while folder.exists():
        folder, number = Path("runs", f"{name}-{number}"), number + 1
    return folder


def _check_folder(folder: Path) -> list[Path]:
    """Return the folders that were made, the inner first. End the command unless files can be written into the last."""
    from fastcv.data.files import check_writable

    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder / "last.pt")
    except OSError as error:
        fail(f"cannot write to {folder}: {reason(error)}")
    return made


def _make_trainer(options: RunOptions, name: str, folder: Path, quiet: bool) -> Trainer:
    """Open the data, make the model and the trainer, or end the command."""
    import torch

    label = first_label_of(name)
    data = open_data(options.data, "train", label, options.data_options)
    check_fits(name, data, options.data, options)
    held_out = _validation_data(options, label, data)
    torch.manual_seed(options.seed)  # of the initial weights
    options.model = name
    model = make_model(options, name, names_for(name, data), options.new_head, fitting_options(name, data))
    options.augment = checked_augment(data, options.augment)
    if options.batch == 1 and model.card.task == "classification" and any("Norm" in str(m) for m in model.children()):
        fail(f"--batch must be at least 2 for {name}: batch norm has no statistics of one sample")
    data, transform = augmented(data, options.augment, options.size)
    facts = {"command": " ".join(["fastcv", *sys.argv[1:]]), "options": asdict(options)}
    try:
        return Trainer(
            make_task(model), model, data, held_out, options, folder, [Progress(quiet)], transform=transform,
            facts=facts,
        )  # fmt: skip
    except ValueError as error:
        fail(reason(error))


def _validation_data(options: RunOptions, label: int, data: Any) -> Any:
    if options.validation == "none":
        return None
    if options.validation is None and Path(options.data).suffix == ".json":
        fail(f"{options.data} is one split: name data to evaluate on with --validation, or --validation none")
    held_out = open_data(options.validation or options.data, "val", label, options.data_options)
    if held_out.names != data.names:
        fail(
            f"the classes of the validation data differ: {_listed(held_out.names)}; to train on: {_listed(data.names)}"
        )
    return held_out


def _listed(names: dict[int, str]) -> str:
    return ", ".join(list(names.values())[:8]) + (", ..." if len(names) > 8 else "")


def checked_augment(data: Any, augment: str | None) -> str:
    """Return the augmentation, the usual one if none was chosen. End the command if it is not for such data."""
    kinds = (AUGMENTS, CLOUD_AUGMENTS)
    known = kinds[is_of_clouds(data)]
    chosen = known[1] if augment is None else augment
    if chosen not in known:
        here, there = ("point clouds", "images") if is_of_clouds(data) else ("images", "point clouds")
        fail(f"--augment {augment} is for {there}; for {here} there are {', '.join(known)}")
    return chosen


def augmented(data: Any, augment: str, size: int | None) -> tuple[Any, Any]:
    """Return the data set and the transform of an augmentation."""
    if augment == "none":
        return data, None
    if is_of_clouds(data):
        from fastcv.data.cloud_transforms import cloud_augmentation

        return data, cloud_augmentation(augment)
    from fastcv.data import transforms as t

    flip = t.HorizontalFlip(keypoint_pairs=data.keypoint_pairs)
    if augment == "flip":
        return data, flip
    if augment == "mosaic":
        from fastcv.data import Mosaic

        return Mosaic(data, size or 416), t.Compose([flip, t.ColourJitter()])
    return data, t.Compose([flip, t.ScaleJitter(0.6, 1.6), t.RandomCrop(size or 640), t.ColourJitter()])


def _run(trainer: Trainer, last: Path | None, folder: Path) -> None:
    """Train, and say what there is."""
    try:
        if last is not None:
            trainer.resume(last)
            if not trainer.remaining_steps:
                trainer.note(f"{last} is finished: more --epochs go on with it")
        trainer.train()
    except KeyboardInterrupt:
        kept = (folder / "last.pt").exists()
        how = f"fastcv train --resume {folder} goes on" if kept else "nothing was written yet"
        raise KeyboardInterrupt(f"interrupted after step {trainer.step}; {how}") from None
    except (TrainingError, ValueError, KeyError, ImportError) as error:
        fail(reason(error))
    except RuntimeError as error:
        if is_out_of_memory(error) or "DataLoader worker" not in str(error):
            raise
        fail(f"{reason(error)} The system may lack memory: fewer --workers need less")
    if processes.rank() == 0:
        best = next((row for row in reversed(trainer.history) if row["best"]), None)
        if best is None:
            console.print(f"{folder / 'last.safetensors'}: step {trainer.step}", soft_wrap=True)
        else:
            main = trainer.task.main(best)
            when = f"after epoch {best['epoch']} of {trainer.total_epochs}"
            console.print(f"{folder / 'best.safetensors'}: {main} {best[main]:.3f} {when}", soft_wrap=True)
