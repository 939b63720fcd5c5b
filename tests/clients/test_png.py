from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from proxy_grm_client.png import encoded_array


def read(image: object) -> np.ndarray:
    png = encoded_array(image)
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 2), (6, 8, 3), (6, 8, 4)])
def test_a_numpy_array_is_height_by_width_by_channels(shape: tuple[int, ...]):
    array = np.random.default_rng(1).integers(0, 256, shape, "uint8")
    assert (read(array) == array.squeeze(-1) if shape[-1] == 1 else read(array) == array).all()


def test_a_view_of_an_array_is_sent_as_it_looks():
    array = np.random.default_rng(1).integers(0, 256, (6, 8, 3), "uint8")
    assert (read(array[::-1, ::2]) == array[::-1, ::2]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_float_tensor_is_channels_by_height_by_width_in_0_to_1(dtype: torch.dtype):
    tensor = torch.tensor([0.0, 0.5, 1.0], dtype=dtype)[:, None, None].expand(3, 6, 8)
    found = read(tensor)
    assert found.shape == (6, 8, 3)
    assert found[0, 0].tolist() == [0, 128, 255]


def test_a_tensor_of_bytes_and_one_that_is_grey_are_taken_too():
    tensor = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    assert (read(tensor) == tensor.permute(1, 2, 0).numpy()).all()
    assert (read(torch.ones(6, 8, requires_grad=True)) == 255).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((6, 8, 3)),
        np.zeros((6, 8, 5), "uint8"),
        np.zeros((2, 6, 8, 3), "uint8"),
        np.zeros((0, 8, 3), "uint8"),
        np.zeros(8, "uint8"),
        torch.zeros(6, 8, 3),
        torch.zeros(3, 6, 8, dtype=torch.int64),
        torch.zeros(1, 3, 6, 8),
        torch.zeros(3, 0, 8),
        torch.full((3, 6, 8), 1.5),
        torch.full((3, 6, 8), -0.1),
        torch.full((3, 6, 8), float("nan")),
    ],
)
def test_what_is_no_picture_is_refused_with_what_is_taken(wrong: object):
    with pytest.raises(ValueError, match="image"):
        encoded_array(wrong)


def test_what_is_no_array_is_for_others_to_encode():
    assert encoded_array("cat.png") is None
    assert encoded_array([[0, 1]]) is None
