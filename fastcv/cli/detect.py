"""``fastcv detect``: a detector's findings, drawn into a photograph."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.table import Table
from torch import Tensor

console = Console(highlight=False)

# What torchvision's checkpoints call their classes: COCO's, with gaps where COCO never used a number.
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
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    weights: Annotated[Path, typer.Option(help="A checkpoint, .pth or .safetensors.")],
    model: Annotated[str, typer.Option(help="Such as maskrcnn_resnet50_fpn.")] = "fasterrcnn_resnet50_fpn",
    output: Annotated[Path, typer.Option(help="Where the drawing goes.")] = Path("detections.png"),
    score: Annotated[float, typer.Option(min=0, max=1, help="Least score of what is drawn.")] = 0.5,
    size: Annotated[int, typer.Option(min=32, help="Pixels that the shorter side is resized to.")] = 800,
    device: Annotated[str, typer.Option(help="Such as cuda.")] = "cpu",
) -> None:
    """Find objects in a photograph, and draw their boxes, masks and keypoints."""
    if output.suffix.lower() != ".png":
        fail(f"the drawing is a PNG: --output {output} has to end in .png")
    photo = open_photo(image)
    detector = load(model, weights, size, device)
    pixels = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1).float().div(255).to(device)
    with torch.inference_mode():
        start = time.perf_counter()
        (found,) = detector([pixels])
        found = {name: value[found["scores"] >= score].cpu() for name, value in found.items()}
        seconds = time.perf_counter() - start
    classes = int(detector.roi_heads.box_predictor.cls_score.out_features)
    names = [name_of(label, classes) for label in found["labels"].tolist()]
    captions = [f"{name} {score:.2f}" for name, score in zip(names, found["scores"].tolist(), strict=True)]
    try:
        draw(photo, found, captions).save(output, format="PNG")
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror or error}")
    count = len(names)
    console.print(f"{output}: {count} object{'' if count == 1 else 's'} in {seconds:.2f} s", soft_wrap=True)
    if names:
        console.print(table(found, names))


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    typer.echo(f"fastcv detect: {message}", err=True)
    raise typer.Exit(2)


def open_photo(path: Path) -> Image.Image:
    """Load a photograph upright and in RGB."""
    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        fail(f"there is no file {path}")
    except UnidentifiedImageError:
        fail(f"{path} is not an image that Pillow can read")
    except Image.DecompressionBombError:
        fail(f"{path} has too many pixels")
    except (OSError, SyntaxError, ValueError) as error:
        fail(f"cannot read {path}: {error}")


def load(name: str, weights: Path, size: int, device: str) -> Any:
    """Make a detector, ready for inference."""
    from fastcv.models.detection import create

    try:
        place = torch.device(device)
        if place.type == "cuda" and not torch.cuda.is_available():
            fail(f"--device {device}: torch sees no GPU here")
        return create(name, weights=weights, min_size=size, max_size=size * 5 // 3).eval().optimize().to(place)
    except (ValueError, KeyError, ImportError, RuntimeError, OSError) as error:
        fail(str(error.args[0] if isinstance(error, KeyError) else error).splitlines()[0])


def name_of(label: int, classes: int) -> str:
    """Return the name of a class, if the model seems to have COCO's; else its number."""
    if classes == 2 and label == 1:
        return "object"
    return COCO[label] if classes == len(COCO) and COCO[label] else f"class {label}"


def draw(photo: Image.Image, found: dict[str, Tensor], captions: list[str]) -> Image.Image:
    """Return a copy of the photograph with what was found drawn into it, the first on top."""
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
    """Return what was found, row by row."""
    rows = Table(box=None, pad_edge=False)
    rows.add_column("object")
    for heading in ("score", "x1", "y1", "x2", "y2"):
        rows.add_column(heading, justify="right")
    for name, score, box in zip(names, found["scores"].tolist(), found["boxes"].tolist(), strict=True):
        rows.add_row(name, f"{score:.2f}", *(f"{corner:.0f}" for corner in box))
    return rows
