"""How far colours are apart, for everyone."""

import numpy as np

# Machado et al. 2009, severity 1, in linear RGB: normal, protan, deutan, tritan vision
VISIONS = [
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
TO_LAB = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])


def distances(srgb):
    """Of colours (n, 3), 0 to 1: for each vision, their distances in CIELAB (n, n)."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    found = []
    for vision in VISIONS:
        xyz = np.clip(linear @ np.transpose(vision), 0.0, 1.0) @ TO_XYZ.T / [0.9505, 1.0, 1.089]
        lab = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0) @ TO_LAB.T
        found.append(np.linalg.norm(lab[:, None] - lab[None], axis=-1))
    return found
