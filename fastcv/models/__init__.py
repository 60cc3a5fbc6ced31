"""Complete models for detection, segmentation and point clouds, built from the layers."""
