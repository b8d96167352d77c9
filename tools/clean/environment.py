"""A virtual environment in which nothing of this process shows, to try what strangers do."""

import os
import subprocess
import venv
from pathlib import Path

from posttrain.core.errors import PosttrainError

# Variables by their beginnings: what would let this process's packages, store or data through.
HIDDEN = ("PYTHON", "VIRTUAL_ENV", "POSTTRAIN_", "JUPYTER", "PIP_CONSTRAINT", "PIP_TARGET")


class Environment:
    """A virtual environment of its own, in which nothing of this process shows."""

    def __init__(self, folder: Path) -> None:
        """Make it; `folder` must not exist."""
        self.folder, self.home = folder, folder / "home"
        venv.create(folder, with_pip=True)
        self.home.mkdir()

    def command(self, *words: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs in an empty folder.

        Args:
            *words: The program's name and its arguments.
            timeout: Seconds after which it is stopped.

        Returns:
            What it printed, and its exit status.
        """
        scripts = self.folder / ("Scripts" if os.name == "nt" else "bin")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN)}
        environment |= {"POSTTRAIN_HOME": str(self.home), "COLUMNS": "100"}
        return subprocess.run(
            [str(scripts / words[0]), *words[1:]],
            cwd=self.home, env=environment, capture_output=True, text=True, check=False,
            timeout=timeout,
        )  # fmt: skip

    def pip(self, *words: str) -> None:
        """Install something.

        Args:
            *words: What follows ``pip install``.

        Raises:
            PosttrainError: If pip failed.
        """
        done = self.command("python", "-m", "pip", "install", "--quiet", *words)
        if done.returncode:
            wanted = " ".join(words)
            raise PosttrainError(f"pip install {wanted} failed:\n{done.stderr[-2000:]}")
