"""Complete models for detection, segmentation and point clouds, built from the layers."""

from fastcv.models.registry import ModelCard, create_model, load_model, model_names, read_card, save_model, weights_path

__all__ = ["ModelCard", "create_model", "load_model", "model_names", "read_card", "save_model", "weights_path"]
