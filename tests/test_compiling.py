"""Where compiled kernels are kept, and when they are made anew; on kernels of the tests' own, in other processes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fireprop
from fireprop.compat import compiler
from fireprop.kernels import compiling

pytestmark = pytest.mark.white_box

PACKAGE = Path(fireprop.__file__).parent
INNER = """
from room.compiling import inlined
@inlined
def scaled(x):
    return 2.0 * x
"""
OUTER = """
from room.compiling import njit
from room.inner import scaled
@njit(nogil=True)
def formula(values):
    return scaled(values[0]) + values[-1]
"""
# Prints the result, then how many kernels came from disk.
USE = """
import numpy as np
from room.outer import formula
print(formula(np.array([1.0, 10.0])), sum(getattr(formula, "stats").cache_hits.values()))
"""


@pytest.fixture
def room(tmp_path):
    """A folder of two kernels, one of which calls the other from another file."""
    folder = tmp_path / "room"
    folder.mkdir()
    shutil.copy(compiler.__file__, folder)
    # `fireprop` itself would load torch in each of the many processes here.
    text = Path(compiling.__file__).read_text()
    (folder / "compiling.py").write_text(text.replace("from fireprop.compat.compiler", "from room.compiler"))
    for name, text in {"__init__.py": "", "inner.py": INNER, "outer.py": OUTER}.items():
        (folder / name).write_text(text)
    return folder


def run(room, program=USE, **environment):
    """What a program prints in a process of its own, word by word."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=room.parent, env={**clean, **environment}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def compiled_files(room):
    return sorted(path.name for path in (room / "__pycache__").glob("*.nb?"))


@pytest.mark.slow
def test_a_kernel_is_compiled_once_and_anew_when_one_that_it_calls_from_another_file_changes(room):
    assert run(room) == ["12.0", "0"]
    assert run(room) == ["12.0", "1"]
    first = compiled_files(room)
    (room / "inner.py").write_text(INNER.replace("2.0 * x", "3.0 * x"))
    assert run(room) == ["13.0", "0"]
    assert run(room) == ["13.0", "1"]
    # Those of the old version are gone.
    assert len(compiled_files(room)) == len(first)
    assert not set(compiled_files(room)) & set(first)


@pytest.mark.slow
def test_a_file_that_is_written_again_with_the_same_content_keeps_its_kernels(room):
    run(room)
    for path in room.glob("*.py"):
        path.write_text(path.read_text())
        os.utime(path, (1.0, 1.0))
    assert run(room) == ["12.0", "1"]


@pytest.mark.slow
def test_kernels_that_check_bounds_are_kept_apart(room):
    beyond = USE.replace("np.array([1.0, 10.0])", "np.array([])")
    run(room)
    with pytest.raises(AssertionError, match="IndexError"):
        run(room, beyond, NUMBA_BOUNDSCHECK="1")
    assert run(room) == ["12.0", "1"]


@pytest.mark.slow
def test_a_kernel_for_other_arguments_is_not_taken_for_the_right_one(room):
    run(room)
    (wanted,) = (room / "__pycache__").glob("*outer*.nbc")
    run(room, USE.replace("10.0]", "10.0], np.float32"))
    (other,) = set((room / "__pycache__").glob("*outer*.nbc")) - {wanted}
    shutil.copy(other, wanted)
    assert run(room) == ["12.0", "0"]
    assert run(room) == ["12.0", "1"]


@pytest.mark.slow
def test_kernels_run_uncached_where_no_folder_can_be_written(room):
    (room / "__pycache__").write_text("a file, not a folder")
    nowhere = {"XDG_CACHE_HOME": "/dev/null", "HOME": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        assert run(room, **nowhere) == ["12.0", "0"]


@pytest.mark.slow
def test_kernels_run_on_where_the_folder_disappears(room):
    lost = USE.replace(
        "print", "import shutil; shutil.rmtree('room/__pycache__'); open('room/__pycache__', 'w')\nprint"
    )
    assert run(room, lost, PYTHONDONTWRITEBYTECODE="1") == ["12.0", "0"]


# Prints how many damaged files it tried. A fresh dispatcher knows no kernel but those on disk.
DAMAGE = """
import random
from pathlib import Path
import numpy as np
from room.compiling import njit
from room.outer import formula
def used():
    fresh = njit(nogil=True)(formula.py_func)
    return fresh(np.array([1.0, 10.0])), sum(fresh.stats.cache_hits.values())
def cut(whole):
    n = len(whole)
    return [whole[:k] for k in {0, 1, 2, 31, 32, 33, 63, 64, 65, n // 2, n - 33, n - 32, n - 1}]
def flipped(whole):
    for bit in random.Random(1).sample(range(8 * len(whole)), 36):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        yield bytes(content)
used()
tried = 0
for file in sorted(Path("room/__pycache__").glob("*outer*.nb?")):
    whole = file.read_bytes()
    for content in [*cut(whole), *flipped(whole), whole + b"0"]:
        file.write_bytes(content)
        assert used() == (12.0, 0), "damaged"
        assert used() == (12.0, 1), "written again"
        tried += 1
print(tried)
"""


@pytest.mark.slow
def test_a_kernel_whose_file_is_cut_or_changed_in_one_bit_is_compiled_and_written_again(room):
    assert run(room, DAMAGE) == ["50"]


# A whole file that this environment cannot load, as of another NumPy, whose modules have other names.
FOREIGN = (
    DAMAGE.split("def cut")[0]
    + """
from room import compiling
used()
(file,) = Path("room/__pycache__").glob("*outer*.nbc")
for content in (b"cno_such_module\\nname\\n.", b"N.", b""):
    file.write_bytes(compiling._sealed(formula._cache._stamp(file) + content))
    assert used() == (12.0, 0), "not loaded"
    assert used() == (12.0, 1), "written again"
    print(content)
"""
)


@pytest.mark.slow
def test_a_kernel_that_is_whole_but_cannot_be_loaded_is_compiled_and_written_again(room):
    assert len(run(room, FOREIGN)) == 3


FULL_DISK = """
import os
import numpy as np
def full(*paths):
    raise OSError(28, "No space left on device")
os.replace = full
from room.outer import formula
print(formula(np.array([1.0, 10.0])), *os.listdir("room/__pycache__"))
"""


def test_a_full_disk_leaves_no_part_of_a_kernel(room):
    assert run(room, FULL_DISK, PYTHONDONTWRITEBYTECODE="1") == ["12.0"]


TOGETHER = """
import sys
import numpy as np
from room.outer import formula
for each in sys.argv[1:]:
    formula(np.array([1.0, 10.0], each))
print(sum(formula.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_processes_that_write_kernels_at_once_keep_them_all(room):
    command = [sys.executable, "-c", TOGETHER]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    orders = (["f4", "f8"], ["f8", "f4"])
    started = [subprocess.Popen([*command, *types], cwd=room.parent, env=clean) for types in orders]
    assert [process.wait() for process in started] == [0, 0]
    assert len(list((room / "__pycache__").glob("*outer*.nbc"))) == 2
    assert run(room, TOGETHER.replace("sys.argv[1:]", "['f8', 'f4']")) == ["2"]


ON_DISK = USE + "from room.compiling import on_disk; print(*on_disk())"


@pytest.mark.slow
def test_damaged_kernels_are_counted(room):
    folder = room / "__pycache__"
    assert run(room, ON_DISK) == ["12.0", "0", f"['{folder}']", "1", "0"]
    (kernel,) = folder.glob("*outer*.nbc")
    kernel.write_bytes(b"")
    assert run(room, "import room.outer\n" + ON_DISK.split("\n")[-1]) == [f"['{folder}']", "0", "1"]


RENAMED = """
from numba.core import caching
del caching.CompileResultCacheImpl
"""
RENAMED_PART = """
from numba.core import caching
class Renamed(caching.CompileResultCacheImpl):
    def __getattribute__(self, name):
        if name == "{}":
            raise AttributeError(name)
        return super().__getattribute__(name)
caching.CompileResultCacheImpl = Renamed
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "filename_base", "reduce"])
def test_kernels_run_uncached_where_numba_has_renamed_what_its_cache_is_made_of(room, part):
    assert run(room, (RENAMED_PART.format(part) if part else RENAMED) + USE) == ["12.0", "0"]


def test_kernels_are_plain_functions_with_the_jit_off(room):
    plain = USE.split("print")[0] + "print(formula(np.array([1.0, 10.0])), type(formula).__name__)"
    assert run(room, plain, NUMBA_DISABLE_JIT="1") == ["12.0", "function"]


def test_options_are_those_of_numba(room):
    both = "from room.outer import formula; from room.inner import scaled\n"
    show = both + "print(*(kernel.targetoptions.get(name) for kernel in (formula, scaled) for name in NAMES))"
    assert run(room, show.replace("NAMES", "('nogil', 'forceinline')")) == ["True", "False", "None", "True"]


PIECES = """
import re
import numpy as np
from room.compiling import called, kernel, piece
@called
def long(x):
    return 3.0 * x
@piece
def short(x):
    return long(x) + 1.0
@kernel
def whole(x):
    return short(x[0])
print(whole(np.array([2.0])))
code = dict(short=short, long=long, whole=whole)
code = {name: "".join(function.inspect_llvm().values()) for name, function in code.items()}
print(*("alwaysinline" in code[name] for name in ("short", "long")))
print(*(len(re.findall("define ", code[name])) for name in ("short", "long")))
print(short(1.0), long(1.0))
"""


@pytest.mark.slow
def test_what_only_kernels_call_has_no_entry_of_its_own_and_python_can_call_it_all_the_same(room):
    """And what is too long to be copied is not, though the first that calls it is a piece."""
    result, *inlined, functions_of_short, functions_of_long, short, long = run(room, PIECES)
    assert (result, short, long) == ("7.0", "4.0", "3.0")
    assert inlined == ["True", "False"]
    assert (functions_of_short, functions_of_long) == ("2", "1")  # with the one that it calls


@pytest.mark.slow
@pytest.mark.parametrize(("program", "result"), [(USE, "12.0"), (PIECES.split("code =")[0], "7.0")])
def test_pieces_are_machine_code_of_their_own_where_numba_has_renamed_what_links_them(room, program, result):
    renamed = "from numba.core import codegen\ndel codegen.JITCodeLibrary\n"
    assert run(room, renamed + program)[0] == result


def test_every_kernel_takes_njit_from_the_one_place_that_knows_of_all_files():
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "compiling.py"]
    kernels = [path for path in others if re.search(r"@(njit|inlined|kernel|piece|called)\b", path.read_text())]
    assert len(kernels) > 15
    for path in kernels:
        assert re.search(
            r"from fireprop\.kernels\.compiling import .*(njit|inlined|kernel|piece|called)", path.read_text()
        ), path
    for path in others:
        assert not re.search(r"from numba import|numba\.(n?jit|vectorize|cfunc)\b", path.read_text()), path


def test_the_digest_is_of_every_file_of_kernels():
    known = {path.relative_to(PACKAGE / "kernels") for path in compiling.HOUSE.rglob("*.py")}
    assert {Path("membrane.py"), Path("graph/state.py"), Path("certify/walk.py")} <= known


WATCHED = """
import gc, numba
from numba.core import event
from room.compiling import njit
@njit
def grows(x):
    return x + 1
@njit
def fails(x):
    return x.no_such_thing
class Watch(event.Listener):
    def on_start(self, _):
        print(gc.isenabled(), end=" ")
    def on_end(self, _):
        pass
event.register("numba:compile", Watch())
grows(1)
print(gc.isenabled(), end=" ")
try:
    fails(1)
except numba.core.errors.TypingError:
    print(gc.isenabled(), end=" ")
gc.disable()
grows(1.0)
print(gc.isenabled())
"""


def test_nobody_looks_for_garbage_while_a_kernel_is_compiled(room):
    while_compiled, after, while_failing, after_failure, while_disabled, after_disabled = run(room, WATCHED)
    assert (while_compiled, while_failing, while_disabled) == ("False", "False", "False")
    assert (after, after_failure, after_disabled) == ("True", "True", "False")
