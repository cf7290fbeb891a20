"""A Python that has imported what is heavy and answers each call in a child of its own, as a new process would.

A command of the program takes two seconds of CPU time to import its libraries and often less than one to do
its work. `warm_tools` makes ``defectgen`` and ``python`` as two small clients: they hand their words, folder,
environment and open files to a server, which forks. The child has one thread and nothing but imported modules from
its parent, runs to its end as a main program and exits with its own code.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HEAVY = ("catboost", "pandas", "polars", "scipy.optimize", "scipy.spatial", "spglib", "ase.io", "pymatgen.io.cif")
OURS = (
    "defectgen_cli.app",
    "defectgen.library",
    "defectgen.design.run",
    "defectgen.report.export",
    "defectgen.dft.codes.calculator_driver",
)
PROGRAM = "import sys; from defectgen_cli.app import main; sys.exit(main())"  # as the installed script has it
ASLEEP = {"jemalloc_bg_thd", "polars-ooc-clea"}
"""Threads that importing Polars leaves, which hold nothing; the first Python thread is the program itself."""
CLIENT = """
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({place!r})
call = json.dumps([{words!r} + sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(link, [len(call).to_bytes(8, "big")], [0, 1, 2])
link.sendall(call)
answer = link.recv(8)
sys.exit(int(answer) if answer else "the child of the warm Python has died")
"""


@contextmanager
def warm_tools() -> Iterator[Path]:
    """Serve ``defectgen`` and ``python`` until the end of the block.

    The children have the environment of their call, but for ``PYTHONPATH`` where they run no module.

    Yields:
        The folder with the two tools.
    """
    with tempfile.TemporaryDirectory(prefix="warm") as name:  # a short path: sockets allow 107 bytes
        place, tools = f"{name}/socket", Path(name) / "bin"
        tools.mkdir()
        for tool, words in {"defectgen": ["-c", PROGRAM], "python": []}.items():
            client = tools / tool
            client.write_text(f"#!{sys.executable} -IS\n{CLIENT.format(place=place, words=words)}")
            client.chmod(0o755)
        call = [sys.executable, __file__, place]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        with subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=one_thread) as server:
            assert server.stdout is not None
            try:
                assert server.stdout.readline() == "ready\n", "the warm Python did not start"
                yield tools
            finally:
                server.terminate()


def next_call(place: str) -> list[str]:
    """Serve calls; returns in the child of each, and only there.

    Args:
        place: path of the socket.

    Returns:
        The words of the call, as they follow ``python``.
    """
    import json

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen(16)
        threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
        assert {*threads} - {threads[0]} <= ASLEEP, f"a process whose threads work cannot be forked: {threads}"
        print("ready", flush=True)
        while True:
            link, _ = server.accept()
            if os.fork():
                link.close()
                with suppress(ChildProcessError):  # those that ended meanwhile
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                continue
            head, files, _, _ = socket.recv_fds(link, 8, 3)
            size, body = int.from_bytes(head, "big"), b""
            while len(body) < size:
                body += link.recv(size - len(body))
            if child := os.fork():
                _, status = os.waitpid(child, 0)
                code = os.waitstatus_to_exitcode(status)
                with suppress(BrokenPipeError):
                    link.sendall(str(code if code >= 0 else 128 - code).encode())
                os._exit(0)
            link.close()
            break
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    words, folder, environment = json.loads(body)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return words


def become(words: list[str]) -> None:
    """Do what ``python`` with these words does: ``-c``, ``-m`` and ``FILE`` here, all else in a new process."""
    if words[:1] == ["-c"]:
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    elif words[:1] == ["-m"]:
        sys.argv, sys.path[0] = words[1:], ""
        sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(":"))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words and not words[0].startswith("-"):
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")
    else:
        os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    for module in (*HEAVY, *OURS):
        importlib.import_module(module)
    gc.freeze()  # the children share the memory of what is imported
    become(next_call(sys.argv[1]))
