"""Fixtures: one project in which nothing has drifted, made once; a copy of it for each test to spoil, and an engine with its images."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import drift_world as world


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "project"
    root.mkdir()
    world.make(root)
    return root


@pytest.fixture(scope="session")
def listening() -> Iterator[world.Engine]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path is at most 107 bytes long
        server = world.Engine(Path(folder) / "engine.sock")
        yield server
        server.shutdown()
        server.server_close()


@pytest.fixture
def engine(listening: world.Engine, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> world.Engine:
    """It has one image of each variant, built from the locks as they are."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{listening.server_address}")
    listening.status, listening.registry = 200, world.BASE[1]
    listening.images = [
        {"RepoTags": [f"verbatim:train-{v}"], "Labels": world.labels(pristine, v)} for v in ("cpu", "cuda")
    ]
    return listening


@pytest.fixture
def project(pristine: Path, tmp_path: Path, engine: world.Engine, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("VERBATIM_ENV", "VERBATIM_VARIANT"):
        monkeypatch.delenv(name, raising=False)
    root = shutil.copytree(pristine, tmp_path / "project", symlinks=True)
    (root / ".venv" / "lib" / "python3.11" / "site-packages" / "verbatim.pth").write_text(f"{root / 'src'}\n")
    return root
