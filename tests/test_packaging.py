"""What is published: the archive of the sources, the wheel that is made of it, and the lowest versions they need."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

HOUSE = Path(__file__).parents[1]
LEFT_HERE = (".git", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist", ".*_cache", ".numba_cache", ".venv")
BUILD = "import sys; from setuptools import build_meta; build_meta.{}(sys.argv[1])"


def build(what, folder, out):
    """The archive that setuptools makes of a folder: "sdist" or "wheel"."""
    command = [sys.executable, "-c", BUILD.format(f"build_{what}"), out]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = (path for path in out.iterdir() if (path.suffix == ".whl") == (what == "wheel"))
    return archive


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what lies here, and the folder that its sdist unpacks to."""
    copy, out = tmp_path_factory.mktemp("copy") / "house", tmp_path_factory.mktemp("sdist")
    shutil.copytree(HOUSE, copy, ignore=shutil.ignore_patterns(*LEFT_HERE))
    with tarfile.open(build("sdist", copy, out)) as archive:
        archive.extractall(out)
    (unpacked,) = (path for path in out.iterdir() if path.is_dir())
    return copy, unpacked


@pytest.mark.slow
def test_the_sdist_has_everything_that_tests_and_readers_need(sources):
    copy, unpacked = sources
    rooms = "src tests docs examples benchmarks conformance parity mutation .ci".split()
    wanted = [path for room in rooms for path in (copy / room).rglob("*") if path.is_file()]
    wanted += [copy / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "LICENSE", "Makefile")]
    assert len(wanted) > 300
    assert not [path for path in wanted if not (unpacked / path.relative_to(copy)).is_file()]
    assert not [path for path in unpacked.rglob("*") if path.suffix in {".pyc", ".nbi", ".nbc"}]


@pytest.mark.slow
def test_every_test_is_found_in_the_unpacked_sdist_and_some_are_run(sources):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "test_reference"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, cwd=sources[1], env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


@pytest.mark.slow
def test_the_wheel_has_types_licence_and_parity_data_and_nothing_but_the_package(sources, tmp_path):
    names = zipfile.ZipFile(build("wheel", sources[1], tmp_path)).namelist()
    assert "fireprop/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    data = {path.name for path in (sources[0] / "src/fireprop/parity/data").glob("*.json")}
    assert data == {name.rpartition("/")[2] for name in names if name.startswith("fireprop/parity/data/")}
    assert {re.split(r"/|-\d", name)[0] for name in names} == {"fireprop"}


def lowest():
    spec = importlib.util.spec_from_file_location("lowest", HOUSE / ".ci" / "lowest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROJECT = {
    "name": "house",
    "dependencies": ["numpy>=1.26", "torch>=2", "later>=3; python_version >= '4'"],
    "optional-dependencies": {"data": ["numpy>=2", "points!=1.0"], "test": ["house[data]", "tests>=8,<9"]},
}
FOUND = {"numpy": "1.25 1.26 2.0rc1 2.0.1 2.1", "points": "0.9.post1 1.0", "tests": "7.9 8.1 9.0"}


def test_lowest_versions_are_those_that_every_requirement_admits():
    found = {name: [Version(each) for each in text.split()] for name, text in FOUND.items()}
    assert lowest().constraints(PROJECT, [], found.get) == ["numpy==1.26"]
    wanted = ["numpy==2.0.1", "points==0.9.post1", "tests==8.1"]
    assert lowest().constraints(PROJECT, ["test"], found.get) == wanted


def test_a_requirement_that_no_version_meets_is_named():
    with pytest.raises(ValueError, match=re.escape("numpy>=1.26: pip finds no wheel of numpy for this Python")):
        lowest().constraints(PROJECT, [], lambda name: [Version("1.0")])


def test_versions_are_read_from_what_pip_prints():
    told = "mpmath (1.4.1)\nAvailable versions: 1.4.1, 0.19, 0.4.src\n  INSTALLED: 1.3.0\n"
    assert list(lowest().listed(told)) == [Version("1.4.1"), Version("0.19")]
