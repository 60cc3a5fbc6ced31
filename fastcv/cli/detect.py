"""``fastcv detect``: the detections of a model, drawn into an image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_device, check_output
from fastcv.cli.photo import open_photo, save_png, to_tensor

console = Console(highlight=False)

# The classes of torchvision's checkpoints: COCO's, with gaps for numbers that COCO does not use.
COCO = [
    " ".join(name.split())
    for name in """
background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, , stop
sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, , backpack, umbrella, ,
, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, , wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, , dining table, , , toilet, , tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, , book, clock, vase,
scissors, teddy bear, hair drier, toothbrush
""".split(",")  # noqa: SIM905
]
COLOURS = ((230, 80, 60), (60, 140, 230), (70, 180, 90), (240, 170, 40), (160, 90, 210), (40, 180, 190))


def detect(
    image: Annotated[Path, typer.Argument(help="An image.")],
    weights: Annotated[Path, typer.Option(help="Checkpoint of the model, .pth or .safetensors.")],
    model: Annotated[str, typer.Option(help="Model, such as maskrcnn_resnet50_fpn.")] = "fasterrcnn_resnet50_fpn",
    output: Annotated[Path, typer.Option(help="PNG file for the drawing.")] = Path("detections.png"),
    score: Annotated[float, typer.Option(min=0, max=1, help="Minimum score of the detections to draw.")] = 0.5,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Length of the shorter side after resizing.")] = 800,
    device: Annotated[str, typer.Option(help="cpu or cuda, or a GPU such as cuda:1.")] = "cpu",
) -> None:
    """Detect objects in an image and draw their boxes, masks and keypoints."""
    check_output(output, "--output", ".png")
    place = check_device(device)
    photo = open_photo(image)
    detector = load(model, weights, size, place)
    pixels = to_tensor(photo).to(place)
    with torch.inference_mode():
        start = time.perf_counter()
        try:
            (found,) = detector([pixels])
        except ValueError as error:
            fail(f"{image}: {reason(error)}")
        found = {name: value[found["scores"] >= score].cpu() for name, value in found.items()}
        seconds = time.perf_counter() - start
    classes = int(detector.roi_heads.box_predictor.cls_score.out_features)
    names = [name_of(label, classes) for label in found["labels"].tolist()]
    captions = [f"{name} {score:.2f}" for name, score in zip(names, found["scores"].tolist(), strict=True)]
    save_png(draw(photo, found, captions), output)
    count = len(names)
    console.print(f"{output}: {count} object{'' if count == 1 else 's'} in {seconds:.2f} s", soft_wrap=True)
    if names:
        console.print(table(found, names))


def load(name: str, weights: Path, size: int, device: torch.device) -> Any:
    """Return a detector, optimized for inference."""
    from fastcv.models.detection import create

    try:
        return create(name, weights=weights, min_size=size, max_size=size * 5 // 3).eval().optimize().to(device)
    except FileNotFoundError as error:
        fail(str(error))
    except (ValueError, KeyError, ImportError) as error:
        fail(reason(error))


def name_of(label: int, classes: int) -> str:
    """Return the name of a class if the model has as many classes as COCO, otherwise its number."""
    if classes == 2 and label == 1:
        return "object"
    return COCO[label] if classes == len(COCO) and COCO[label] else f"class {label}"


def draw(photo: Image.Image, found: dict[str, Tensor], captions: list[str]) -> Image.Image:
    """Return a copy of the image with the detections drawn into it, the first on top."""
    drawing = photo.copy()
    for index in reversed(range(len(captions))):
        colour = COLOURS[int(found["labels"][index]) % len(COLOURS)]
        if "masks" in found:
            veil = Image.new("RGB", drawing.size, colour)
            mask = (found["masks"][index, 0] > 0.5).mul(110).to(torch.uint8)
            drawing.paste(veil, mask=Image.fromarray(mask.numpy()))
        pen = ImageDraw.Draw(drawing)
        width = max(2, round(max(drawing.size) / 400))
        box = found["boxes"][index].tolist()
        pen.rectangle(box, outline=colour, width=width)
        text = captions[index]
        left, top, right, bottom = pen.textbbox((box[0] + width, box[1] + width), text)
        pen.rectangle((left - width, top - width, right + width, bottom + width), fill=colour)
        pen.text((box[0] + width, box[1] + width), text, fill="white")
        if "keypoints" in found:
            for x, y, _ in found["keypoints"][index].tolist():
                pen.ellipse((x - width, y - width, x + width, y + width), fill=colour, outline="white")
    return drawing


def table(found: dict[str, Tensor], names: list[str]) -> Table:
    """Return a table of the detections."""
    rows = Table(box=None, pad_edge=False)
    rows.add_column("object")
    for heading in ("score", "x1", "y1", "x2", "y2"):
        rows.add_column(heading, justify="right")
    for name, score, box in zip(names, found["scores"].tolist(), found["boxes"].tolist(), strict=True):
        rows.add_row(name, f"{score:.2f}", *(f"{corner:.0f}" for corner in box))
    return rows
