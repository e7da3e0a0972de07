"""Builds the archives of a release, checks them, and runs the whole suite on the installed wheel with every Python.

    python .ci/release_check.py                # all of it: `make release-check`; hours
    python .ci/release_check.py --quick        # the archives, and the wheel in this Python: seconds, as in .ci/run
    python .ci/release_check.py --tests tests/test_spikes.py   # what is given to pytest instead of the whole suite

The archives are left in dist/. Each Python from 3.10 to 3.13 that is found on PATH, by pyenv or by uv gets an
environment with the newest versions of what fireprop needs, and one with the lowest that pyproject.toml admits. The
last lines say what was not checked: a Python that is not here, links where there is no network. Exit code 1 if a check
failed.
"""

import argparse
import contextlib
import email.parser
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

HOUSE = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LEFT_HERE = (".git", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist", ".*_cache", ".numba_cache", ".venv")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"
WITH_LINKS = ("*.md", "docs/**/*.md", "pyproject.toml", "CITATION.cff")
# A network of two units by hand: at tau_mem = tau_syn the weight e puts the peak of V, at t = 1, at the threshold.
SMOKE = """
import math, sys, torch, fireprop
assert "site-packages" in fireprop.__file__ or sys.argv[1] in fireprop.__file__, fireprop.__file__
layer = fireprop.nn.LIF(1, 1, tau_mem=1.0, tau_syn=1.0, dtype=torch.float64)
layer.weight.data.fill_(2.0 * math.e)
out = layer(fireprop.Spikes.from_latencies([[0.0]]), t_end=3.0).times
out.sum().backward()
f = float(out[0].detach())
assert abs(2.0 * math.e * f * math.exp(-f) - 1.0) < 1e-14 and torch.isfinite(layer.weight.grad).all()
print(f"fireprop {fireprop.__version__} of the wheel: a spike at {f!r}, its gradient {float(layer.weight.grad)!r}")
"""


class CheckError(Exception):
    """A check of a release that failed; the text says which, and what was found."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the archives, and the wheel in this Python")
    parser.add_argument("--python", nargs="*", default=PYTHONS, help="versions, instead of 3.10 to 3.13")
    parser.add_argument("--tests", nargs=argparse.REMAINDER, default=["-n", "2", "-m", ""], help="arguments of pytest")
    asked = parser.parse_args()
    missing: list[str] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        sdist, wheel = build(HOUSE, HOUSE / "dist", room / "copy")
        say(f"built {sdist.name} and {wheel.name}")
        check_sdist(sdist, HOUSE)
        check_wheel(wheel, HOUSE)
        missing += twine([sdist, wheel])
        if asked.quick:
            smoke(wheel, room / "installed")
        else:
            sources = unpacked(sdist, room / "sources")
            for version in asked.python:
                try:
                    missing += suites(version, wheel, sources, room, asked.tests)
                except (CheckError, subprocess.CalledProcessError) as error:
                    failed.append(f"Python {version}: {error}")
            gone, unreachable = links(HOUSE)
            failed += gone
            missing += unreachable
    for line in missing:
        say(f"not checked: {line}")
    for line in failed:
        say(f"failed: {line}")
    say("every check that was made has passed" if not failed else f"{len(failed)} checks failed")
    sys.exit(bool(failed))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------------------- the archives


def build(house: Path, out: Path, copy: Path) -> tuple[Path, Path]:
    """The sdist of a copy of a folder, and the wheel that is made of the sdist, in `out`, which is emptied first.

    A copy, so that nothing that lies here by chance gets in.
    """
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(house, copy, ignore=shutil.ignore_patterns(*LEFT_HERE))
    sdist = _built("sdist", copy, out)
    return sdist, _built("wheel", unpacked(sdist, copy.with_name(f"{copy.name}-sdist")), out)


def _built(what: str, folder: Path, out: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(what), out], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    return out / done.stdout.split()[-1]


def unpacked(sdist: Path, out: Path) -> Path:
    """The folder that an sdist unpacks to."""
    with tarfile.open(sdist) as archive:
        archive.extractall(out, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


def check_sdist(sdist: Path, house: Path) -> None:
    """Raises CheckError if it lacks a file that tests or readers need, or holds what was compiled."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    rooms = "src tests docs examples benchmarks conformance parity mutation .ci .github".split()
    files = [path for room in rooms for path in (house / room).rglob("*") if path.is_file()]
    files += [path for path in house.glob("*") if path.suffix in {".md", ".cff", ".toml"} or path.name == "LICENSE"]
    wanted = {str(path.relative_to(house)) for path in files if not _is_left_here(path.relative_to(house))}
    if absent := sorted(wanted - names):
        raise CheckError(f"{sdist.name} lacks {', '.join(absent)}: name them in MANIFEST.in")
    if compiled := sorted(name for name in names if name.endswith((".pyc", ".nbi", ".nbc"))):
        raise CheckError(f"{sdist.name} holds {', '.join(compiled)}: exclude them in MANIFEST.in")


def _is_left_here(path: Path) -> bool:
    return any(part in LEFT_HERE or part.endswith((".egg-info", "_cache")) for part in path.parts)


def check_wheel(wheel: Path, house: Path) -> None:
    """Raises CheckError if it lacks types, licence or data, holds more than the package, or says another version."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = email.parser.Parser().parsestr(archive.read(metadata).decode())
    package = house / "src" / "fireprop"
    data = {str(path.relative_to(package.parent)) for path in package.rglob("*") if path.suffix in {".json", ".typed"}}
    code = {str(path.relative_to(package.parent)) for path in package.rglob("*.py")}
    if absent := sorted((data | code) - {*names}):
        raise CheckError(f"{wheel.name} lacks {', '.join(absent)}")
    if not any(name.endswith("licenses/LICENSE") for name in names):
        raise CheckError(f"{wheel.name} has no licence")
    if more := {re.split(r"/|-\d", name)[0] for name in names} - {"fireprop"}:
        raise CheckError(f"{wheel.name} holds {', '.join(sorted(more))} beside the package")
    if (said["Version"], said["License-Expression"]) != (version_of(house), "Apache-2.0"):
        raise CheckError(f"{wheel.name} says version {said['Version']}, licence {said['License-Expression']}")


def version_of(house: Path) -> str:
    """The version, from the one file that has it."""
    return re.findall(r'^__version__ = "(.*)"$', (house / "src/fireprop/_version.py").read_text(), re.MULTILINE)[0]


def twine(archives: Sequence[Path]) -> list[str]:
    """Let twine check the archives; where it is not installed, a list of this one thing that was not checked."""
    if subprocess.run([sys.executable, "-c", "import twine"], stderr=subprocess.DEVNULL).returncode:
        return ["twine check: pip install twine"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *archives], check=True)
    return []


def smoke(wheel: Path, target: Path) -> None:
    """Install the wheel into a folder of its own, beside what this Python has, and differentiate a spike with it."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(pip, check=True)
    environment = {**os.environ, "PYTHONPATH": str(target), "NUMBA_DISABLE_JIT": "1"}  # nothing is compiled for it
    subprocess.run([sys.executable, "-c", SMOKE, target], check=True, env=environment, cwd=target)
    subprocess.run([sys.executable, "-m", "fireprop", "--version"], check=True, env=environment, cwd=target)


# -------------------------------------------------------------------------------------------------------- every Python


def suites(version: str, wheel: Path, sources: Path, room: Path, tests: Sequence[str]) -> list[str]:
    """Run the tests of the sdist on the wheel in a Python, with newest and with lowest versions; what was missing."""
    found = find_python(version)
    if found is None:
        return [f"Python {version}, which is neither on PATH nor with pyenv or uv"]
    for kind in ("newest", "lowest"):
        folder = room / f"{version}-{kind}"
        say(f"== Python {version}, {kind} versions")
        subprocess.run([found, "-m", "venv", folder], check=True)
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip", "packaging", "tomli"], check=True)
        options = ["-p", "no:cacheprovider"]
        if kind == "lowest":
            constraints = folder / "lowest.txt"
            lowest = subprocess.run([python, sources / ".ci/lowest.py"], check=True, stdout=subprocess.PIPE)
            constraints.write_bytes(lowest.stdout)
            pip += ["-c", constraints]
            options += ["-W", "ignore::DeprecationWarning"]  # they may call what newer versions announce to remove
        subprocess.run([*pip, f"{wheel}[test]"], check=True)
        subprocess.run([python, "-c", SMOKE, folder], check=True, cwd=folder)
        done = subprocess.run([python, "-m", "pytest", "-q", *options, *tests], cwd=sources)
        if done.returncode:
            raise CheckError(f"pytest ended with {done.returncode}, {kind} versions")
        shutil.rmtree(folder)
    return []


def find_python(version: str) -> str | None:
    """An interpreter of a version that starts, from PATH, pyenv, or uv, which is asked to install it."""
    return next((path for path in candidates(version) if _is_python(path, version)), None)


def candidates(version: str) -> Iterator[str]:
    yield from filter(None, [shutil.which(f"python{version}")])
    root = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    yield from sorted(glob.glob(f"{glob.escape(root)}/versions/{version}.*/bin/python"))
    if shutil.which("uv"):
        subprocess.run(["uv", "python", "install", version], stderr=subprocess.DEVNULL)
        found = subprocess.run(["uv", "python", "find", version], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        yield from found.stdout.decode().split("\n")[:1] if found.returncode == 0 else []


def _is_python(path: str, version: str) -> bool:
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    with contextlib.suppress(OSError):
        done = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.returncode == 0 and done.stdout.strip() == version
    return False


# --------------------------------------------------------------------------------------------------------------- links


def links(house: Path) -> tuple[list[str], list[str]]:
    """The links to other hosts that answer with an error, and those that nobody answers."""
    gone, silent = [], []
    for link, page in external_links(house).items():
        try:
            request = urllib.request.Request(link, headers={"User-Agent": "Mozilla/5.0"})
            urllib.request.urlopen(request, timeout=20).close()
        except urllib.error.HTTPError as error:
            (silent if error.code in {403, 429} else gone).append(f"{page}: {link} answers {error.code}")
        except (OSError, ValueError) as error:
            silent.append(f"{page}: {link}: {error}")
    return gone, silent


def external_links(house: Path) -> dict[str, str]:
    """Each http link of the pages, and the first page that has it."""
    found: dict[str, str] = {}
    for path in sorted(path for pattern in WITH_LINKS for path in house.glob(pattern)):
        for link in re.findall(r"https?://[^\s<>)\"'`]+", path.read_text(encoding="utf-8")):
            found.setdefault(link.rstrip(".,;:"), str(path.relative_to(house)))
    return found


if __name__ == "__main__":
    main()
