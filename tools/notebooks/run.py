"""Run a notebook in the kernel of a given interpreter, and note its time and its memory."""

import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil

LONGEST_CELL = 1800  # seconds, as in _config.yml


@dataclass(frozen=True)
class Run:
    """How a notebook fared.

    Attributes:
        page: The page it was made from.
        passed: Whether all cells ran.
        install_seconds: Time of the first cell.
        seconds: Time of the other cells.
        memory: The most that the kernel held, in GiB.
        error: What went wrong; empty if nothing did.
    """

    page: str
    passed: bool
    install_seconds: float
    seconds: float
    memory: float = 0.0
    error: str = ""


def run_with(python: Path, variables: dict[str, str], file: Path, page: str, work: Path) -> Run:
    """Run a notebook, which stays as it is.

    Args:
        python: The interpreter of its kernel, which must have ipykernel.
        variables: The kernel's environment.
        file: The notebook.
        page: The page it was made from.
        work: The folder in which it runs.

    Returns:
        How it fared.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    quiet = "--log-level=40"  # a kernel on 127.0.0.1 warns that it speaks plain text
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", quiet]
    manager = AsyncKernelManager()
    manager._kernel_spec = KernelSpec(argv=argv, display_name="Clean", language="python")
    notebook = nbformat.read(file, as_version=4)
    memory = [0.0]

    def look(**_: Any) -> None:
        memory.append(memory_of(getattr(manager.provisioner, "pid", 0)))

    client = NotebookClient(
        notebook,
        km=manager,
        timeout=LONGEST_CELL,
        record_timing=True,
        resources={"metadata": {"path": str(work)}},
        on_cell_executed=look,
    )
    start, error = time.monotonic(), ""
    try:
        client.execute(env=variables)
    except CellExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    except Exception as failure:  # a dead kernel, a cell that takes too long
        error = f"{type(failure).__name__}: {failure}"
    finally:
        if manager.has_kernel:  # the client leaves alone what it did not start
            run_sync(manager.shutdown_kernel)(now=True)
    install = seconds_of(notebook.cells[0])
    seconds = time.monotonic() - start - install
    held = round(max(memory), 2)
    return Run(page, not error, round(install, 1), round(seconds, 1), held, error)


def memory_of(pid: int) -> float:
    """Return the most memory that a process has held until now, in GiB.

    Args:
        pid: The process.

    Returns:
        The largest size of its resident memory; where only Linux could tell it, the present
        size; 0 if there is no such process.
    """
    try:
        status = Path(f"/proc/{pid}/status")
        if status.is_file():
            found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
            return int(found[1]) / 2**20 if found else 0.0
        return float(psutil.Process(pid).memory_info().rss) / 2**30
    except (OSError, psutil.Error):
        return 0.0


def seconds_of(cell: Any) -> float:
    """Return how long a cell ran, by the times that nbclient noted."""
    times = cell.metadata.get("execution", {})
    begin, end = times.get("iopub.execute_input"), times.get("shell.execute_reply")
    if not begin or not end:
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
