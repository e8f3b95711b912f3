"""Every optimizer on a GPU: fused AdamW, bitsandbytes' own kernels, state in host memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import jobs, optimizer_cases
from support.optimizer_cases import CASES
from support.ranks import run_ranks

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gpu_optimizers")
    jobs.make_folders(root)
    return root


def test_every_optimizer_goes_on_bit_by_bit(folders: Path):
    whole = run_ranks(1, optimizer_cases.train, folders, CASES, device="cuda")
    pairs = [(case, case) for case in CASES]
    again = run_ranks(1, optimizer_cases.resume, folders, "same", pairs, whole, device="cuda")
    for case in CASES:
        assert again[case, case]["losses"] == whole[case]["losses"][3:]
        plain = whole[case[0], 0, False]["losses"]
        assert whole[case]["losses"] == pytest.approx(plain, rel=1e-3)
