"""What is published: the archive of the sources, the wheel that is made of it, and the lowest versions they need."""

import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
import urllib.error
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

import fireprop

HOUSE = Path(__file__).parents[1]


def of_ci(name):
    """A script of .ci, as a module."""
    spec = importlib.util.spec_from_file_location(name, HOUSE / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = of_ci("release_check")


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The sdist of what lies here, and the wheel that is made of it."""
    room = tmp_path_factory.mktemp("archives")
    return release.build(HOUSE, room / "dist", room / "copy")


@pytest.mark.slow
def test_the_sdist_has_everything_that_tests_and_readers_need(archives):
    release.check_sdist(archives[0], HOUSE)


@pytest.mark.slow
@pytest.mark.evidence
def test_every_test_is_found_in_the_unpacked_sdist_and_some_are_run(archives, tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "test_encoding"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    folder = release.unpacked(archives[0], tmp_path)
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


@pytest.mark.slow
def test_the_wheel_has_types_licence_data_and_version_and_nothing_but_the_package(archives):
    release.check_wheel(archives[1], HOUSE)
    with zipfile.ZipFile(archives[1]) as wheel:
        assert "fireprop/py.typed" in wheel.namelist()
        assert sum(name.startswith("fireprop/") and name.endswith(".json") for name in wheel.namelist()) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "added", "words"),
    [
        ("fireprop/py.typed", None, "lacks fireprop/py.typed"),
        ("licenses/LICENSE", None, "has no licence"),
        (None, "tests/conftest.py", "holds tests beside the package"),
    ],
)
def test_a_wheel_that_lacks_or_adds_something_is_refused(archives, tmp_path, left_out, added, words):
    copy = tmp_path / archives[1].name
    with zipfile.ZipFile(archives[1]) as whole, zipfile.ZipFile(copy, "w") as wheel:
        for name in whole.namelist():
            if left_out is None or not name.endswith(left_out):
                wheel.writestr(name, whole.read(name))
        if added:
            wheel.writestr(added, "")
    with pytest.raises(release.CheckError, match=re.escape(words)):
        release.check_wheel(copy, HOUSE)


@pytest.mark.slow
def test_an_sdist_that_lacks_something_is_refused(archives, tmp_path):
    copy = tmp_path / "fireprop.tar.gz"
    with tarfile.open(archives[0]) as whole, tarfile.open(copy, "w:gz") as sdist:
        for member in whole.getmembers():
            if member.isfile() and not member.name.endswith("/README.md"):
                sdist.addfile(member, whole.extractfile(member))
    with pytest.raises(release.CheckError, match=r"lacks README\.md, .*README\.md: name them in MANIFEST\.in"):
        release.check_sdist(copy, HOUSE)


def test_a_python_is_found_by_its_version_and_a_missing_one_is_told(tmp_path):
    version = ".".join(map(str, sys.version_info[:2]))
    assert release.find_python(version)
    assert release.suites("2.0", tmp_path, tmp_path, tmp_path, []) == [
        "Python 2.0, which is neither on PATH nor with pyenv or uv"
    ]


def test_links_that_are_gone_are_told_from_those_that_nobody_answers(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text("[a](https://a.org/x), <https://b.org>. https://c.org/y: `https://d.org`")
    answers = {"https://a.org/x": None, "https://b.org": 404, "https://c.org/y": 403, "https://d.org": OSError("away")}

    def answer(request, timeout):
        found = answers[request.full_url]
        if found is None:
            return io.BytesIO()
        raise found if isinstance(found, OSError) else urllib.error.HTTPError(request.full_url, found, "", {}, None)

    monkeypatch.setattr(release.urllib.request, "urlopen", answer)
    gone, silent = release.links(tmp_path)
    assert gone == ["page.md: https://b.org answers 404"]
    assert silent == ["page.md: https://c.org/y answers 403", "page.md: https://d.org: away"]


def test_the_citation_names_the_version_and_the_paper():
    text = (HOUSE / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {fireprop.__version__}\n" in text
    assert "Exact Gradient Computation for Spiking Neural Networks via Forward Propagation" in text
    assert release.version_of(HOUSE) == fireprop.__version__


lowest = of_ci("lowest")


PROJECT = {
    "name": "house",
    "dependencies": ["numpy>=1.26", "torch>=2", "later>=3; python_version >= '4'"],
    "optional-dependencies": {"data": ["numpy>=2", "points!=1.0"], "test": ["house[data]", "tests>=8,<9"]},
}
FOUND = {"numpy": "1.25 1.26 2.0rc1 2.0.1 2.1", "points": "0.9.post1 1.0", "tests": "7.9 8.1 9.0"}


def test_lowest_versions_are_those_that_every_requirement_admits():
    found = {name: [Version(each) for each in text.split()] for name, text in FOUND.items()}
    assert lowest.constraints(PROJECT, [], found.get) == ["numpy==1.26"]
    wanted = ["numpy==2.0.1", "points==0.9.post1", "tests==8.1"]
    assert lowest.constraints(PROJECT, ["test"], found.get) == wanted


def test_a_requirement_that_no_version_meets_is_named():
    with pytest.raises(ValueError, match=re.escape("numpy>=1.26: pip finds no wheel of numpy for this Python")):
        lowest.constraints(PROJECT, [], lambda name: [Version("1.0")])


def test_versions_are_read_from_what_pip_prints():
    told = "mpmath (1.4.1)\nAvailable versions: 1.4.1, 0.19, 0.4.src\n  INSTALLED: 1.3.0\n"
    assert list(lowest.listed(told)) == [Version("1.4.1"), Version("0.19")]
