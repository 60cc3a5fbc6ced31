"""Names of classes that published weights are trained for."""

from __future__ import annotations

__all__ = ["COCO_80", "COCO_91", "VOC_20"]

_COCO = """
background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, , stop
sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, , backpack, umbrella, ,
, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, , wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, , dining table, , , toilet, , tv,
laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, , book, clock, vase,
scissors, teddy bear, hair drier, toothbrush
"""
_VOC = """
aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person,
pottedplant, sheep, sofa, train, tvmonitor
"""


def _listed(text: str) -> list[str]:
    return [" ".join(name.split()) for name in text.split(",")]


# Label to name as in torchvision's checkpoints: COCO's own numbers, with gaps that it does not use; 0 is background.
COCO_91: dict[int, str] = {label: name for label, name in enumerate(_listed(_COCO)) if name}

# Label to name as in YOLO's weights: the same classes without background and gaps, from 0 on.
COCO_80: dict[int, str] = dict(enumerate(name for label, name in COCO_91.items() if label))

VOC_20: dict[int, str] = dict(enumerate(_listed(_VOC)))
