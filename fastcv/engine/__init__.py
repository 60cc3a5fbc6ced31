"""Training and evaluation of all models: one loop, tasks, metrics."""

from fastcv.engine.callbacks import Callback, Progress
from fastcv.engine.coco import CocoScores, evaluate_coco
from fastcv.engine.detection import DetectionScore, detection_confusion, evaluate_detection
from fastcv.engine.evaluation import evaluate
from fastcv.engine.options import TrainOptions
from fastcv.engine.schedule import rate_factor
from fastcv.engine.segmentation import class_iou, confusion_matrix, mean_iou
from fastcv.engine.tasks import ClassificationTask, DetectionTask, PointSegmentationTask, SegmentationTask, Task
from fastcv.engine.trainer import Trainer, TrainingError
from fastcv.engine.transfer import class_count, freeze, parameter_groups, replace_head
from fastcv.engine.yaml_options import OptionError, Options

__all__ = [
    "Callback",
    "ClassificationTask",
    "CocoScores",
    "DetectionScore",
    "DetectionTask",
    "OptionError",
    "Options",
    "PointSegmentationTask",
    "Progress",
    "SegmentationTask",
    "Task",
    "TrainOptions",
    "Trainer",
    "TrainingError",
    "class_count",
    "class_iou",
    "confusion_matrix",
    "detection_confusion",
    "evaluate",
    "evaluate_coco",
    "evaluate_detection",
    "freeze",
    "mean_iou",
    "parameter_groups",
    "rate_factor",
    "replace_head",
]
