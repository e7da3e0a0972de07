"""Run folders: nothing is overwritten, files are whole or not there, one process trains, faults come in one line."""

import itertools
import json
import os
import platform
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import fireprop
from fireprop import training
from fireprop.runs import RunError, RunFolder, lock, new_path

WANTED = Path(__file__).with_name("wanted.py")


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({"task": "xor"})
    return folder


def test_a_folder_that_holds_something_is_never_taken(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match=re.escape(f"{tmp_path} exists and is not empty")):
        RunFolder.create(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_file_in_place_of_the_folder_is_never_taken(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="exists and is not empty"):
        RunFolder.create(tmp_path / "run")


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=re.escape(f"cannot make the folder {tmp_path / 'file' / 'run'}")):
        RunFolder.create(tmp_path / "file" / "run")


def test_only_a_run_opens_as_a_run(tmp_path):
    with pytest.raises(RunError, match=re.escape(f"{tmp_path} is no run folder: it has no config.json")):
        RunFolder.open(tmp_path)


def test_what_is_written_is_read(run):
    run.write_result({"test_accuracy": 0.5})
    assert RunFolder.open(run.path).read_config() == {"task": "xor"}
    assert not run.has_checkpoint()
    assert run.read_result() == {"test_accuracy": 0.5}


def test_a_checkpoint_comes_back_as_it_was(run):
    run.save_checkpoint({"weights": {"w": torch.arange(3.0)}, "rows": [{"epoch": 1, "loss": 0.25, "none": None}]})
    state = run.load_checkpoint()
    assert torch.equal(state["weights"]["w"], torch.arange(3.0))
    assert state["rows"] == [{"epoch": 1, "loss": 0.25, "none": None}]


def test_a_missing_checkpoint_is_named(run):
    with pytest.raises(RunError, match=re.escape(f"{run.path} has no checkpoint.pt")):
        run.load_checkpoint()


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_checkpoint_is_refused_in_one_line(run, keep):
    run.save_checkpoint({"weights": {"w": torch.zeros(1000)}})
    path = run.path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=re.escape(f"{path} is unreadable, truncated or no checkpoint")) as caught:
        run.load_checkpoint()
    assert "\n" not in str(caught.value)


def test_a_foreign_file_is_no_checkpoint(run):
    torch.save({"model": torch.zeros(2)}, run.path / "checkpoint.pt")
    with pytest.raises(RunError, match="is no checkpoint of this version of fireprop"):
        run.load_checkpoint()


class _Payload:
    """An object that a checkpoint must not be able to bring to life."""


def test_a_checkpoint_cannot_run_code(run):
    torch.save(_Payload(), run.path / "checkpoint.pt")
    with pytest.raises(RunError, match="unreadable, truncated or no checkpoint"):
        run.load_checkpoint()


def test_a_broken_configuration_is_named(run):
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=re.escape(f"{run.path / 'config.json'} is no JSON")):
        run.read_config()
    (run.path / "config.json").write_text("[1]")
    with pytest.raises(RunError, match="holds no JSON object"):
        run.read_config()


def test_a_write_that_fails_leaves_the_old_file(run):
    run.write_result({"epoch": 1})
    with pytest.raises(TypeError):
        run.write_result({"epoch": object()})
    assert json.loads((run.path / "result.json").read_text()) == {"epoch": 1}


def test_metrics_are_a_table_with_a_line_per_epoch(run):
    run.write_metrics([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}])
    assert (run.path / "metrics.csv").read_text().splitlines() == ["epoch,loss", "1,0.5", "2,"]


def test_new_paths_do_not_exist_yet(tmp_path):
    first = new_path("xor", tmp_path)
    first.mkdir()
    second = new_path("xor", tmp_path)
    assert first.name.startswith("xor-")
    assert not second.exists()
    assert second != first


def test_a_report_has_a_page_and_tables(run):
    table = run.write_table("seeds", [{"seed": 0, "accuracy": 0.5}, {"seed": 1, "accuracy": None}])
    assert table.read_text().splitlines() == ["seed,accuracy", "0,0.5", "1,"]
    assert run.write_page("# Title\n").read_text() == "# Title\n"


def test_a_number_that_is_none_is_no_json(run):
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        run.write_result({"loss": float("nan")})


# ---------------------------------------------------------------------------------------- one process to a folder


def wanted(folder, number):
    done = subprocess.run([sys.executable, WANTED, folder, str(number)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_four_threads_want_at_once_is_given_once(tmp_path):
    def taken(_):
        barrier.wait()
        return [name for name in range(50) if is_created(tmp_path / str(name))]

    barrier = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        assert sorted(itertools.chain(*pool.map(taken, range(4)))) == [*range(50)]


def is_created(path):
    try:
        RunFolder.create(path).write_config({"task": "xor"})
    except RunError:
        return False
    return True


@pytest.mark.slow
def test_what_four_processes_want_at_once_is_given_once(tmp_path):
    once = {"1": 300}
    assert wanted(tmp_path, 300) == {"new": once, "claimed": once, "empty": once, "locked": once}


def test_folders_of_the_same_second_are_numbered(tmp_path, monkeypatch):
    names = iter([tmp_path / "a", tmp_path / "b"])
    monkeypatch.setattr("fireprop.runs.folder.new_path", lambda *_: next(names))
    (tmp_path / "a").mkdir()  # by a process that looked at the same moment
    assert RunFolder.create_new("xor", tmp_path).path == tmp_path / "b"


def test_a_claimed_folder_is_free_again_if_its_first_file_cannot_be_written(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    with pytest.raises(RunError, match=r"this process .* trains here"):
        RunFolder.create(tmp_path / "run")
    with pytest.raises(ValueError, match="JSON"):
        run.write_config({"lr": float("nan")})
    with pytest.raises(RunError, match="cannot write"):
        run.write_table("no/folder", [])
    RunFolder.create(tmp_path / "run").write_config({})
    assert {path.name for path in run.path.iterdir()} == {"config.json"}


def start_of(pid):
    """When a process started, in ticks since the boot: field 22 of its stat."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


def own_lock(**changes):
    """What this process writes into a lock, from the files of the system."""
    mine = {
        "pid": os.getpid(),
        "host": platform.node(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "namespace": os.readlink("/proc/self/ns/pid"),
        "started": start_of(os.getpid()),
    }
    return {**mine, **changes}


@pytest.fixture
def other():
    """Another process, which waits to be killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def write_lock(run, content):
    (run.path / ".lock").write_text(content if isinstance(content, str) else json.dumps(content))


def is_taken_over(run):
    before = (run.path / ".lock").read_bytes()
    try:
        with run.locked():
            assert json.loads((run.path / ".lock").read_text()) == own_lock()
    except RunError as error:
        refusal = str(error)
    else:
        assert not (run.path / ".lock").exists()
        return True
    assert (run.path / ".lock").read_bytes() == before
    assert str(run.path / ".lock") in refusal  # the remedy names the file
    return False


def test_while_a_folder_is_locked_its_process_and_host_are_named(run, other):
    write_lock(run, own_lock(pid=other.pid, started=start_of(other.pid)))
    words = f"{run.path}: another process (pid {other.pid}, host {platform.node()}) trains here."
    with pytest.raises(RunError, match=re.escape(words)):
        training.train(run)
    assert not is_taken_over(run)


def test_the_lock_of_a_killed_process_is_taken_over(run, other):
    content = own_lock(pid=other.pid, started=start_of(other.pid))
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and waits for its parent to notice
    write_lock(run, content)
    assert is_taken_over(run)
    other.wait()
    write_lock(run, content)
    assert is_taken_over(run)


def test_a_lock_is_judged_by_host_boot_and_start_of_its_process(run, other):
    alive = {"pid": other.pid, "started": start_of(other.pid)}
    dead = {"pid": 2**22 + 1}  # more than any process id of Linux
    gone = [own_lock(**dead), own_lock(**alive) | {"started": "1"}, own_lock(**alive, boot="before")]
    unknown = [
        own_lock(**alive),
        own_lock(**dead, host="elsewhere"),
        own_lock(**alive, host="elsewhere", boot="before"),
        own_lock(**dead, namespace="of a container"),
        own_lock(**dead, host=""),
        own_lock(pid=-1),
        own_lock(pid=0),
        own_lock(pid=10**30),
        own_lock(pid=other.pid, started=""),
    ]
    for content in gone:
        write_lock(run, content)
        assert is_taken_over(run), content
    for content in unknown:
        write_lock(run, content)
        assert not is_taken_over(run), content


@pytest.mark.parametrize("content", ["", "{", "[]", "12", "null", "[" * 5000, '{"pid": 1}', '{"pid": "1"}', "\x00"])
def test_a_lock_that_is_none_is_named_and_left(run, content):
    write_lock(run, content)
    with pytest.raises(RunError, match=re.escape(f"{run.path / '.lock'} is no lock of fireprop: delete it")):
        training.train(run)
    write_lock(run, own_lock(pid="1"))
    assert not is_taken_over(run)


def test_a_link_or_fifo_in_place_of_the_lock_is_named_and_left(run, tmp_path):
    (tmp_path / "precious").write_text(json.dumps(own_lock(pid=2**22 + 1)))
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink(tmp_path / "precious", path)):
        make(run.path / ".lock")
        with pytest.raises(RunError, match=re.escape(f"cannot write {run.path / '.lock'}: ")):
            training.train(run)
        (os.rmdir if (run.path / ".lock").is_dir() else os.unlink)(run.path / ".lock")


def test_without_proc_a_lock_is_judged_by_its_process_alone(run, other, monkeypatch):
    monkeypatch.setattr(lock, "_text", lambda path: "")
    monkeypatch.setattr(lock, "_namespace", lambda: "")
    bare = {"boot": "", "namespace": "", "started": ""}
    write_lock(run, own_lock(pid=other.pid, **bare))
    with pytest.raises(RunError, match=rf"another process .pid {other.pid}, host .* trains here"):
        training.train(run)
    write_lock(run, own_lock(pid=2**22 + 1, **bare))
    with run.locked():
        assert json.loads((run.path / ".lock").read_text()) == own_lock(**bare)


def test_windows_judges_no_lock_since_its_kill_would_end_the_process(run, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("this ends the process on Windows"))
    write_lock(run, own_lock(pid=2**22 + 1))
    assert not is_taken_over(run)


def test_a_lock_works_on_file_systems_without_hard_links(run, monkeypatch):
    def no_link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    with run.locked(), pytest.raises(RunError, match=r"this process .* trains here"):
        training.train(run)
    write_lock(run, own_lock(pid=2**22 + 1))
    assert is_taken_over(run)


def test_a_lock_that_another_process_has_by_now_is_not_removed(run, other):
    with run.locked():
        (run.path / ".lock").unlink()  # by hand
        write_lock(run, own_lock(pid=other.pid))
    assert json.loads((run.path / ".lock").read_text()) == own_lock(pid=other.pid)


def test_what_killed_processes_leave_is_removed_and_nothing_else(run):
    killed = [".config.json.part", ".sample.png.part", ".lock.0123456789abcdef.part", ".x.csv.0123456789abcdef.part"]
    mine = ["config.json", ".config.json", "my.part", ".my.part", ".my.json.part", "x.csv.0123456789abcdef.part"]
    for name in [*killed, *mine]:
        (run.path / name).write_text("{}")
    with run.locked():
        assert {path.name for path in run.path.iterdir()} == {*mine, ".lock"}


# ------------------------------------------------------------------------------------------------------- versions

OLD = Path(__file__).with_name("data") / "run-0.1.0"


@pytest.fixture
def old(tmp_path):
    """A run folder as fireprop 0.1.0 wrote it."""
    for path in OLD.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return RunFolder.open(tmp_path)


def test_a_run_of_0_1_0_is_evaluated(old):
    result = old.read_result()
    found = training.evaluate(old)["test"]
    assert found.accuracy == result["test_accuracy"]
    assert found.spikes_per_sample == result["spikes_per_sample"]
    assert found.spikes_to_decision == result["spikes_to_decision"]
    assert old.read_version() is None


@pytest.mark.slow
def test_a_run_of_0_1_0_is_drawn(old):
    assert {path.name for path in training.draw(old)} == {"learning_curves.png", "sample.png", "first_spikes.png"}


def test_a_run_of_another_version_is_not_gone_on_with(old):
    before = {path.name: path.read_bytes() for path in old.path.iterdir()}
    words = f"fireprop 0.1.0, which recorded no version, trained this run, this is fireprop {fireprop.__version__}"
    with pytest.raises(RunError, match=re.escape(words)):
        training.train(old, resume=True)
    assert {path.name: path.read_bytes() for path in old.path.iterdir()} == before


def test_configuration_and_checkpoint_record_the_version_and_both_are_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(training.pictures, "draw_pictures", lambda *_: [])
    run = training.start("xor", tmp_path / "run", epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(fireprop, "__version__", "0.2.0.dev7")
        run.write_config(run.read_config())
        training.train(run)
        assert json.loads((run.path / "config.json").read_text())["version"] == "0.2.0.dev7"
        assert run.load_checkpoint()["version"] == "0.2.0.dev7"
        training.train(run, resume=True)
    words = f"fireprop 0.2.0.dev7 trained this run, this is fireprop {fireprop.__version__}: train anew, or install"
    with pytest.raises(RunError, match=re.escape(words)):
        training.train(run, resume=True)
    run.write_config(run.read_config())
    with pytest.raises(RunError, match=re.escape(words)):
        training.train(run, resume=True)
    assert training.evaluate(run)["test"].accuracy == run.read_result()["test_accuracy"]


def test_a_configuration_that_a_newer_version_wrote_names_it(run):
    config = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**config, "version": "9.0"}))
    with pytest.raises(RunError, match=r"its configuration cannot be used: .*; fireprop 9\.0 wrote it"):
        training.evaluate(run)
    (run.path / "config.json").write_text(json.dumps({**config, "version": [1]}))
    with pytest.raises(RunError, match="version is a list"):
        training.evaluate(run)
