"""Codes packed at their bits: what goes in comes out, without a gap."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmqnet.ops import pack_codes, unpack_codes


@given(bits=st.integers(1, 8), count=st.integers(0, 70), seed=st.integers(0, 9))
def test_unpacking_gives_what_was_packed(bits, count, seed):
    codes = torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(seed))
    packed = pack_codes(codes, bits)
    assert packed.dtype is torch.uint8
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(unpack_codes(packed, bits, count), codes.to(torch.uint8))


@given(bits=st.integers(1, 8), count=st.integers(1, 30))
def test_bits_are_in_order(bits, count):
    codes = torch.arange(count) % 2**bits
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    assert bytes(pack_codes(codes, bits).tolist()) == number.to_bytes(
        -(-count * bits // 8), 'little'
    )


def test_any_shape_and_integer_type_is_packed():
    codes = torch.randint(8, (3, 5, 2), dtype=torch.int32).transpose(0, 2)
    assert torch.equal(unpack_codes(pack_codes(codes, 3), 3, 30), codes.flatten().to(torch.uint8))


@pytest.mark.parametrize(
    ('codes', 'bits', 'error', 'message'),
    [
        (torch.tensor([4]), 2, ValueError, '0 to 3 for 2 bits, but are 4 to 4'),
        (torch.tensor([-1]), 2, ValueError, 'but are -1 to -1'),
        (torch.tensor([1.0]), 2, TypeError, 'should be integers'),
        (torch.tensor([True]), 1, TypeError, 'should be integers'),
        (torch.tensor([1]), 9, ValueError, '`bits` should be an integer from 1 to 8'),
        (torch.tensor([1]), 2.0, TypeError, '`bits` should be an integer from 1 to 8'),
    ],
)
def test_what_cannot_be_packed_is_refused(codes, bits, error, message):
    with pytest.raises(error, match=message):
        pack_codes(codes, bits)


def test_bytes_of_another_count_are_refused():
    packed = pack_codes(torch.zeros(10, dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match=r'hold 3 bytes for 8 codes of 3 bits, but .* \(4,\)'):
        unpack_codes(packed, 3, 8)
    with pytest.raises(TypeError, match=r'should be of torch.uint8'):
        unpack_codes(packed.int(), 3, 10)
