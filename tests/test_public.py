"""What is public: the package's names, the page that lists them, the examples in docstrings and README."""

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fireprop

HOUSE = Path(__file__).parents[1]
WITH_EXAMPLES = [
    "plotting.explorer.document",
    "plotting.samples",
    "sweeping.sweep",
    "spikes.container",
    "external",
    "ift",
    "losses.activity",
    "losses.distances",
    "losses.first_spike",
    "losses.spike_times",
    "nn.readout",
    "nn.record",
    "nn.constants",
    "nn.dropout",
    "nn.convolution",
    "nn.stencils",
    "nn.scaling",
    "weighting",
    "encoding",
    "gradcheck.check",
    "evidence.gradchecks",
    "evidence.random_networks.small",
    "certify",
    "evidence.certificates",
    "validity",
    "shares",
    "silent.projection",
    "silent.units",
    "forcing",
    "diagnosis.examination",
    "datasets.spike_dataset",
    "datasets.yinyang",
    "datasets.tables",
    "datasets.augmentation",
    "datasets.events",
    "datasets.splitting",
]


WITH_MEMBERS = {
    *(
        "nn",
        "external",
        "ift",
        "losses",
        "encoding",
        "datasets",
        "gradcheck",
        "certify",
        "validity",
        "silent",
        "forcing",
    ),
    "diagnosis",
    "objectives",
    "plans",
    "plotting",
    "shares",
    "sweeping",
    "training",
}


def test_every_public_name_is_on_the_page_and_the_other_way_round():
    page = re.findall(r"^\| `fireprop\.(\w+)` \|", (HOUSE / "docs/api.md").read_text(), flags=re.MULTILINE)
    assert sorted(
        {
            *fireprop.__all__,
            "certify",
            "datasets",
            "diagnosis",
            "evidence",
            "gradcheck",
            "interop",
            "objectives",
            "plans",
            "plotting",
            "shares",
            "silent",
            "forcing",
            "sweeping",
            "training",
            "validity",
        }
    ) == sorted(page)


def test_all_is_sorted_and_complete():
    assert sorted(fireprop.__all__) == fireprop.__all__
    for name in fireprop.__all__:
        assert hasattr(fireprop, name)


def test_the_page_names_only_what_exists():
    for line in (HOUSE / "docs/api.md").read_text().splitlines():
        match = re.match(r"\| `fireprop\.(\w+)` \| (.*) \|", line)
        if match and match[1] in WITH_MEMBERS:
            module = importlib.import_module(f"fireprop.{match[1]}")
            for name in re.findall(r"`(\w+)`", match[2]):
                assert hasattr(module, name), f"{match[1]}.{name}"


def test_nothing_that_draws_is_loaded_before_something_is_drawn():
    code = "import sys, fireprop.cli, fireprop.training; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(f"fireprop.{name}")
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    "page",
    [
        "docs/adaptation.md",
        "docs/convolution.md",
        "docs/neurons.md",
        "docs/gradients.md",
        "docs/exactness.md",
        "docs/memory.md",
        "docs/sparse.md",
        "docs/data.md",
        "docs/doctor.md",
        "docs/explorer.md",
        "docs/losses.md",
        "docs/long_runs.md",
        "docs/physics.md",
        "docs/silent.md",
        "docs/starting_weights.md",
    ],
)
def test_the_python_of_the_pages_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", (HOUSE / page).read_text(), flags=re.DOTALL)
    assert blocks
    one_by_one = "import sys\nfor block in sys.argv[1:]:\n    exec(block, {'__name__': '__main__'})"
    done = subprocess.run([sys.executable, "-c", one_by_one, *blocks], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_ten_lines_of_the_readme_print_what_they_say():
    (block,) = re.findall(r"```python\n(.*?)```", (HOUSE / "README.md").read_text(), flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line and not line.startswith("#")]) == 10
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed, promised = (re.findall(r"-?\d\.\d+", text) for text in (done.stdout, block.splitlines()[-1]))
    assert [float(number) for number in printed] == pytest.approx([float(n) for n in promised], rel=1e-7)
    assert float(printed[0]) == pytest.approx(float(printed[1]), rel=1e-7)


def test_the_readme_has_its_two_commands_and_at_most_150_lines():
    page = (HOUSE / "README.md").read_text()
    assert len(page.splitlines()) <= 150
    for heading in ("Install", "Test"):
        assert re.search(rf"^## {heading}\n\n```sh\npip install [^\n]+\n```$", page, flags=re.MULTILINE), heading


def test_the_links_of_the_readme_lead_to_files():
    page = (HOUSE / "README.md").read_text()
    links = [link for link in re.findall(r"(?:\]\(|src=\")([^)\"#]+)", page) if "://" not in link]
    assert links
    assert [link for link in links if not (HOUSE / link).exists()] == []
