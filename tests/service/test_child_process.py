from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import multiprocessing, os, signal, threading, time
from service.child_process import end_with_spawner

def child(said):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_spawner()
    said.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    for _ in range(8):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    heard, said = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    context.Process(target=child, args=(said,), daemon=True).start()
    print(heard.recv(), flush=True)
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_heeds_no_sigterm_ends_with_a_parent_of_many_threads(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, script]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    try:
        deadline = time.monotonic() + 10
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not alive(child)
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


def test_a_process_that_nobody_spawned_is_left_alone():
    code = "from service.child_process import end_with_spawner; end_with_spawner(); print(7)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "7\n"
