"""Synthetic clouds: solid shapes for classifiers, and labelled streets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastcv.data import (
    SOLIDS,
    STREET_CLASSES,
    labelled_street_scan,
    street_scan,
    synthetic_solids,
    synthetic_streets,
)
from fastcv.data.solids import rotation
from fastcv.data.street import KERB, ROAD, SCANNER_HEIGHT
from fastcv.data.surfaces import sample_surface, to_unit_ball


def area(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_surfaces_have_the_areas_of_their_formulas() -> None:
    """Circles are 48 pieces, so round ones may be 1 % smaller."""
    for seed in range(3):
        shapes = {name: make(np.random.default_rng(seed)) for name, make in SOLIDS.items()}
        x, y, z = np.ptp(shapes["box"][0], axis=0)
        assert area(*shapes["box"]) == pytest.approx(2 * (x * y + y * z + z * x))
        width, _, height = np.ptp(shapes["cylinder"][0], axis=0)
        assert area(*shapes["cylinder"]) == pytest.approx(math.pi * width * (width / 2 + height), rel=0.01)
        width, _, height = np.ptp(shapes["cone"][0], axis=0)
        slant = math.hypot(width / 2, height)
        assert area(*shapes["cone"]) == pytest.approx(math.pi * width / 2 * (width / 2 + slant), rel=0.01)
        radius = np.ptp(shapes["torus"][0][:, 2]) / 2
        assert area(*shapes["torus"]) == pytest.approx(4 * math.pi**2 * radius, rel=0.02)
        outer, _, height = np.ptp(shapes["tube"][0], axis=0)
        inner = np.hypot(*shapes["tube"][0][:, :2].T).min()
        rims = 2 * math.pi * (1 - inner**2)
        assert area(*shapes["tube"]) == pytest.approx(math.pi * outer * height * (1 + inner) + rims, rel=0.01)
        steps = shapes["stairs"][0]
        run, rise, width = np.ptp(steps, axis=0)
        profile = sum(rise / run * step for step in range(1, round(run) + 1))
        assert area(*shapes["stairs"]) == pytest.approx(2 * profile + 2 * (run + rise) * width)


def test_every_cloud_has_its_shape() -> None:
    data = synthetic_solids(40, points=200, seed=1)
    assert len(data) == 40
    assert list(data.names.values()) == list(SOLIDS)
    assert len(SOLIDS) >= 10
    for index in (0, 13, 39):
        points, label = data[index]
        assert points.shape == (200, 3)
        assert points.dtype is torch.float32
        assert label == index % len(SOLIDS)
        again, _ = synthetic_solids(1000, points=200, seed=1)[index]
        assert torch.equal(points, again)
        assert not torch.equal(points, synthetic_solids(40, points=200, seed=2)[index][0])
        assert float(points.norm(dim=1).max()) < 1.1
        assert float(points.mean(0).abs().max()) < 0.02
    assert torch.equal(data[-1][0], data[39][0])
    assert synthetic_solids(40, first_label=1)[3][1] == 4
    assert synthetic_solids(40, first_label=1).names[4] == list(SOLIDS)[3]
    with pytest.raises(IndexError, match="index 40 is out of range for 40 clouds"):
        data[40]


def test_noise_pose_and_occlusion_are_real() -> None:
    label = list(SOLIDS).index("torus")
    options = {"points": 2000, "noise": 0.0, "tilt": 0.0, "occlusion": 0.0}
    clean = synthetic_solids(20, **options)[label][0]
    flat = float(clean[:, 2].std() / clean[:, 0].std())
    assert flat < 0.5  # it lies
    noisy = synthetic_solids(20, **options | {"noise": 0.05})[label][0]
    assert float((noisy - clean).std()) == pytest.approx(0.05, rel=0.05)
    poses = [synthetic_solids(200, **options | {"tilt": 180.0})[label + 10 * i][0] for i in range(20)]
    up = torch.stack([torch.linalg.svd(cloud, full_matrices=False).Vh[2, 2].abs() for cloud in poses])
    assert 0.3 < float(up.mean()) < 0.7  # of directions in a ball the mean is 0.5
    cut = synthetic_solids(400, **options | {"occlusion": 0.9})
    middle = [
        ((cloud.amax(0) + cloud.amin(0)) / 2).abs().max() for cloud in (cut[label + 10 * i][0] for i in range(20))
    ]
    assert float((clean.amax(0) + clean.amin(0)).abs().max()) < 0.1
    assert float(max(middle)) > 0.12  # what is left is not even around its mean
    still = {"points": 500, "noise": 0.0, "tilt": 0.0, "occlusion": 0.0, "turn": 0.0}
    boxes = [synthetic_solids(200, **still)[1 + 10 * i][0] for i in range(5)]  # their faces look along the axes
    away = [torch.cat([cloud.amax(0) - cloud, cloud - cloud.amin(0)], 1).amin(1).max() for cloud in boxes]
    assert float(max(away)) < 0.02
    for _ in range(3):
        turn = rotation(np.random.default_rng(0), 30.0)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert math.degrees(math.acos(turn[2, 2])) <= 30


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"count": -1}, "count must be at least 0, got -1"),
        ({"points": 0}, "points must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"noise": -0.1}, "noise must be from 0 to below 1, got -0.1"),
        ({"tilt": 200}, "tilt must be from 0 to 180 degrees, got 200"),
        ({"turn": 400}, "turn must be from 0 to 360 degrees, got 400"),
        ({"occlusion": 1.0}, "occlusion must be from 0 to 0.9, got 1.0"),
    ],
)
def test_bad_options(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        synthetic_solids(**{"count": 1} | options)


def test_unit_ball() -> None:
    points = torch.randn(2, 50, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
    moved = to_unit_ball(points)
    torch.testing.assert_close(moved[..., :3].mean(1), torch.zeros(2, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(moved[..., :3].norm(dim=2).amax(1), torch.ones(2))
    assert torch.equal(moved[..., 3:], points[..., 3:])
    assert torch.equal(to_unit_ball(torch.full((4, 3), 2.0)), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"points must have shape \(..., N, 3 or more\) and N not 0, got \(0, 3\)"):
        to_unit_ball(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="no area"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5, np.random.default_rng(0))


def test_labels_of_a_street_are_where_they_belong() -> None:
    points, labels = labelled_street_scan(2, rings=40, columns=600)
    assert torch.equal(points, street_scan(2, rings=40, columns=600))
    assert labels.shape == points.shape[:1]
    counts = dict(zip(STREET_CLASSES, labels.bincount(minlength=len(STREET_CLASSES)).tolist(), strict=True))
    assert min(counts.values()) > 50, counts
    height, aside = points[:, 2] + SCANNER_HEIGHT, points[:, 1].abs()
    where = {name: labels == number for number, name in enumerate(STREET_CLASSES)}
    assert float(height[where["ground"]].max()) < KERB + 0.1
    assert float(aside[where["building"]].min()) > 7.4
    assert float(aside[where["car"]].max()) < ROAD + 0.3
    assert float(height[where["car"]].max()) < 1.6
    assert float(aside[where["person"]].min()) > 4.9
    assert float(height[where["person"]].max()) < 2.1
    assert float((aside[where["pole"]] - ROAD - 0.6).abs().max()) < 0.3
    assert float(height[where["vegetation"]].median()) > 0.5


def test_streets() -> None:
    data = synthetic_streets(3, seed=4, rings=8, columns=90, first_label=1)
    assert data.names == dict(enumerate(STREET_CLASSES, 1))
    points, labels = data[1]
    assert points.shape == (len(labels), 4)
    assert int(labels.min()) == 1
    assert torch.equal(points, synthetic_streets(9, seed=4, rings=8, columns=90)[1][0])
    assert not torch.equal(points[:50], data[2][0][:50])
    assert torch.equal(data[-1][0], data[2][0])
    with pytest.raises(IndexError, match="index 3 is out of range for 3 scans"):
        data[3]
    with pytest.raises(ValueError, match="rings must be at least 1, got 0"):
        synthetic_streets(1, rings=0)
