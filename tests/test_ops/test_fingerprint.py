"""A fingerprint of tensors shows every change."""

import pytest
import torch
from quantization_formula import needs_kernel

from mmqnet.ops import fingerprint

pytestmark = needs_kernel
CHUNK = 1 << 14  # float32 values that are hashed together


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('size', [1, 7, 16, 1001, 2 * CHUNK + 5])
def test_a_change_of_any_value_shows(size, dtype):
    x = random(size, dtype=dtype)
    before = fingerprint([x])
    assert before.shape == ()
    for i in range(0, size, max(1, size // 37)):
        value = x[i].clone()
        x[i] += 2.0**-4
        assert fingerprint([x]) != before
        x[i] = value
        assert fingerprint([x]) == before


@pytest.mark.parametrize('distance', [1, 8, 16, CHUNK])
def test_swapped_values_show(distance):
    x = random(3 * CHUNK)
    y = x.clone()
    y[[5, 5 + distance]] = y[[5 + distance, 5]]
    assert fingerprint([x]) != fingerprint([y])


def test_swapped_parts_and_tensors_show():
    x = random(3 * CHUNK)
    rotated = x.roll(CHUNK)
    assert fingerprint([x]) != fingerprint([rotated])
    assert fingerprint([x, rotated]) != fingerprint([rotated, x])
    assert fingerprint([x]) != fingerprint([x, x])


def test_shapes_and_dtypes_show():
    x = torch.zeros(6)
    others = [
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(3, dtype=torch.float64),
        torch.zeros(6, dtype=torch.int32),
        torch.zeros(0),
        torch.zeros(0, 6),
        torch.tensor(0.0),
    ]
    assert len({fingerprint([tensor]).item() for tensor in [x, *others]}) == 8


def test_values_count_and_not_their_place_in_memory():
    x = random(12, 10)
    for same in (x.clone(), x.t().contiguous().t(), torch.stack((x, x), -1)[..., 0]):
        assert fingerprint([same]) == fingerprint([x])
    assert fingerprint([x.t()]) != fingerprint([x])


def test_threads_do_not_matter():
    x, threads = random(50 * CHUNK + 3), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(fingerprint([x]))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_writes_through_data_and_numpy_show():
    x = random(100)
    seen = {fingerprint([x]).item()}
    x.data[3] = 0
    seen.add(fingerprint([x]).item())
    x.numpy()[4] = 0
    seen.add(fingerprint([x]).item())
    assert len(seen) == 3


def test_none_elsewhere():
    assert fingerprint([torch.ones(3, device='meta')]) is None
