"""Faster and Mask R-CNN, ResNet-50 with a feature pyramid, one image of 480×640 (workloads M1 and M2)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload
from fastcv.cli import contenders

HEIGHT, WIDTH = 480, 640


def image() -> Tensor:
    """(3, 480, 640), values 0 to 1."""
    return contenders.image(HEIGHT, WIDTH)


@lru_cache(maxsize=1)
def weights(name: str) -> dict[str, Tensor]:
    """The weights that all contenders get."""
    torch.manual_seed(0)
    model = getattr(importlib.import_module("fastcv.models.detection"), name)()
    contenders.spread(model, image())
    state: dict[str, Tensor] = model.state_dict()
    return state


@lru_cache(maxsize=4)
def detector(package: str, name: str, how: str = "") -> Callable[[list[Tensor]], list[dict[str, Tensor]]]:
    """Build a model of one of the packages."""
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    model = getattr(importlib.import_module(f"{package}.models.detection"), name)(**options)
    model.load_state_dict(weights(name))
    model.eval()
    if how:
        model.optimize(torch.bfloat16 if how == "bfloat16" else None)

    def detect(images: list[Tensor]) -> list[dict[str, Tensor]]:
        model.to(images[0].device)
        with torch.no_grad():
            found: list[dict[str, Tensor]] = model(images)
        return found

    return detect


def problem(variant: Variant) -> Problem:
    """One image."""
    return Problem(([image().to(variant.device)],))


def detect(contender: Callable[..., Any], images: list[Tensor]) -> Tensor:
    """Scores, which are compared between contenders; boxes whose scores are nearly equal may change places."""
    (found,) = contender(images)
    scores: Tensor = found["scores"]
    return scores


def training_problem(variant: Variant) -> Problem:
    """One image with eight objects."""
    corner = torch.rand(8, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([400.0, 300.0])
    target = {"boxes": torch.cat([corner, corner + 150], 1), "labels": torch.arange(1, 9)}
    images = [image().to(variant.device)]
    return Problem((images, [{key: value.to(variant.device) for key, value in target.items()}]))


@lru_cache(maxsize=2)
def trainer(package: str, name: str) -> Callable[..., Tensor]:
    """Build a model of one of the packages, to be trained with a frozen first half as is usual."""
    model = getattr(importlib.import_module(f"{package}.models.detection"), name)(weights=None, weights_backbone=None)
    model.load_state_dict(weights(name))
    for parameter in (*model.backbone.body.conv1.parameters(), *model.backbone.body.layer1.parameters()):
        parameter.requires_grad_(False)
    model.train()

    def step(images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        model.to(images[0].device)
        torch.manual_seed(0)
        model.zero_grad()
        loss = torch.stack(list(model(images, targets).values())).sum()
        loss.backward()
        return loss.detach()

    return step


def train(contender: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return contender(*arguments)


def inference(id: str, name: str, title: str) -> Workload:
    """One model: as it is, optimized, and torchvision's."""
    return Workload(
        id=id,
        title=f"{title} R50-FPN, one image 480×640, evaluation, 91 classes",
        problem=problem,
        call=detect,
        contenders={
            "fastcv": partial(detector, "fastcv", name),
            "fastcv optimize()": partial(detector, "fastcv", name, "float32"),
            "torchvision": partial(detector, "torchvision", name),
        },
        targets={"one thread": Target(ratio=1.4), "all threads": Target(ratio=1.4), "cuda": Target(ratio=1.5)},
    )


@lru_cache(maxsize=1)
def captured(name: str, dtype: str) -> Callable[[list[Tensor]], list[dict[str, Tensor]]]:
    """The whole inference as one CUDA graph, captured at the first call."""
    model = getattr(importlib.import_module("fastcv.models.detection"), name)(weights=None, weights_backbone=None)
    model.load_state_dict(weights(name))
    model.eval().optimize(getattr(torch, dtype))
    graphs: dict[Any, Any] = {}

    def detect(images: list[Tensor]) -> list[dict[str, Tensor]]:
        batch = torch.stack(images)
        if batch.shape not in graphs:
            model.to(batch.device)
            graph, kept = torch.cuda.CUDAGraph(), batch.clone()
            with torch.no_grad():
                model.forward_padded(kept)
                with torch.cuda.graph(graph):
                    found = model.forward_padded(kept)
            graphs[batch.shape] = graph, kept, found
        graph, kept, found = graphs[batch.shape]
        kept.copy_(batch)
        graph.replay()
        return [{key: value[i] for key, value in found.items()} for i in range(len(images))]

    return detect


def large_problem(variant: Variant, images: int) -> Problem:
    """Images of 800×1333."""
    one = torch.nn.functional.interpolate(image()[None], (800, 1333), mode="bilinear")[0].to(variant.device)
    return Problem(([one.roll(37 * i, -1) for i in range(images)],))


def detect_all(contender: Callable[..., Any], images: list[Tensor]) -> Tensor:
    """Scores of all images."""
    return torch.cat([found["scores"] for found in contender(images)])


def inference_on_gpu(id: str, name: str, title: str, images: int) -> Workload:
    """One model on 800×1333: as it is, in one graph, and torchvision's."""
    return Workload(
        id=f"{id}-800-{images}",
        title=f"{title} R50-FPN, {images} × 800×1333, evaluation",
        problem=partial(large_problem, images=images),
        call=detect_all,
        contenders={
            "fastcv": partial(detector, "fastcv", name),
            "fastcv graph": partial(captured, name, "float32"),
            "fastcv graph, float16": partial(captured, name, "float16"),
            "torchvision": partial(detector, "torchvision", name),
        },
        targets={"cuda": Target(ratio=1.5)},
        tolerance=None,  # a graph's results are padded
        devices=("cuda",),
    )


MODELS = (("M1", "fasterrcnn_resnet50_fpn", "Faster R-CNN"), ("M2", "maskrcnn_resnet50_fpn", "Mask R-CNN"))
WORKLOADS = [
    *(inference_on_gpu(*model, images) for model in MODELS for images in (1, 8)),
    inference("M1", "fasterrcnn_resnet50_fpn", "Faster R-CNN"),
    inference("M2", "maskrcnn_resnet50_fpn", "Mask R-CNN"),
    Workload(
        id="M1-bfloat16",
        title="Faster R-CNN R50-FPN, one image 480×640, evaluation, network in bfloat16",
        problem=problem,
        call=detect,
        contenders={
            "fastcv optimize(bfloat16)": partial(detector, "fastcv", "fasterrcnn_resnet50_fpn", "bfloat16"),
            "torchvision": partial(detector, "torchvision", "fasterrcnn_resnet50_fpn"),
        },
        tolerance=None,  # other boxes are found
    ),
    Workload(
        id="M1-training",
        title="Faster R-CNN R50-FPN, one image 480×640, losses and gradients",
        problem=training_problem,
        call=train,
        contenders={
            "fastcv": partial(trainer, "fastcv", "fasterrcnn_resnet50_fpn"),
            "torchvision": partial(trainer, "torchvision", "fasterrcnn_resnet50_fpn"),
        },
        targets={"all threads": Target(ratio=1.2)},
        tolerance=1e-2,
    ),
]

test_rcnn = run_case
