from pathlib import Path

import pytest

from support import jobs


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models and prepared data; tests put their runs beside them."""
    root = tmp_path_factory.mktemp("trainer")
    jobs.make_folders(root)
    return root
