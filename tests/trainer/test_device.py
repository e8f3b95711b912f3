"""`base.dtype: auto` on a CPU is decided by products with weights as the base keeps them."""

from __future__ import annotations

import pytest
import torch

from recipes.base import Base
from trainer import device

KINDS = ("none", "nf4", "fp4", "int8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_timed_is_the_product(kind: str, dtype: torch.dtype) -> None:
    found = device.product(dtype, kind)()
    assert found.dtype == dtype
    # 512 ones times ones, which every kind keeps exactly.
    torch.testing.assert_close(found.float(), torch.full((512, 512), 512.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_faster_one_of_its_own_kind_is_taken(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of others float32 would be."""
    times = {(torch.float32, other): 1.0 for other in KINDS}
    times |= {(torch.bfloat16, other): 2.0 for other in KINDS}
    times[torch.bfloat16, kind] = 0.5
    monkeypatch.setattr(device, "_seconds", lambda dtype, asked: times[dtype, asked])
    cpu = torch.device("cpu")
    for other in KINDS:
        chosen = device.choose_dtype(Base(source="/x", quantization=other), cpu)
        assert chosen == (torch.bfloat16 if other == kind else torch.float32)
