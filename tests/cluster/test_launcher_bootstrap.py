"""How `./cargoflow` makes its own environment:

with real pip, from a package index that is a folder, in a copy of the launcher.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cluster.harness import REPOSITORY


class Checkout:
    """A folder with the launcher, a lock file of one tiny package, and a command line that prints that."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._index = root.parent / "index"  # pip takes a space for the end of a folder's name
        self._index.mkdir()
        (root / "app" / "cli").mkdir(parents=True)
        (root / "app" / "cli" / "__main__.py").write_text(
            "import sys, tiny\nprint(tiny.VERSION, *sys.argv[1:], sys.prefix)\n"
        )
        shutil.copy(REPOSITORY / "cargoflow", root)
        self.require("1.0")

    def require(self, version: str, *, lock: str = "requirements.lock", package: str = "tiny") -> None:
        """Build a wheel and make it what the lock file asks for."""
        wheel = self._index / f"{package}-{version}-py3-none-any.whl"
        info = f"{package}-{version}.dist-info"
        files = {
            f"{package}.py": f"VERSION = {version!r}\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.root / lock).write_text(f"{package}=={version} --hash=sha256:{digest}\n")

    def environment(self, **changes: str) -> dict[str, str]:
        """The caller's environment, whose pip configuration knows the folder and no other index."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        settings = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self._index),
            "CARGOFLOW_PYTHON": sys.executable,
        }
        return {**ours, **settings, **changes}

    def start(self, *arguments: str, cwd: Path | None = None, **changes: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.root / "cargoflow"), *arguments],
            cwd=cwd or self.root,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, cwd: Path | None = None, **changes: str) -> tuple[int, str, str]:
        process = self.start(*arguments, cwd=cwd, **changes)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")


def test_the_first_run_makes_the_environment_and_the_second_does_nothing_of_it(
    checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()  # not to be mistaken for ours
    (tmp_path / "app" / "__init__.py").touch()
    code, out, err = checkout.run("status", "--json", cwd=tmp_path)
    assert (code, out) == (0, f"1.0 status --json {checkout.root / '.venv'}\n"), err
    assert "installing requirements.lock" in err
    assert "Collecting" not in err
    assert checkout.run("status", cwd=tmp_path) == (0, f"1.0 status {checkout.root / '.venv'}\n", "")


def test_a_changed_lock_updates_the_environment(checkout: Checkout) -> None:
    checkout.run()
    checkout.require("2.0")
    code, out, err = checkout.run()
    assert (code, out.split()[0]) == (0, "2.0")
    assert "making .venv" not in err
    assert checkout.run()[2] == ""


def test_only_test_and_bootstrap_dev_install_the_development_packages(checkout: Checkout) -> None:
    checkout.require("1.0", lock="requirements-dev.lock", package="tinydev")
    probe = ["-c", "import tinydev"]
    checkout.run()
    python = checkout.root / ".venv" / "bin" / "python"
    assert subprocess.run([python, *probe], stderr=subprocess.DEVNULL, check=False).returncode == 1
    assert checkout.run("bootstrap", "--dev")[0] == 0
    assert subprocess.run([python, *probe], check=False).returncode == 0
    assert checkout.run("test")[1:] == (f"1.0 test {checkout.root / '.venv'}\n", "")


def test_what_reads_documents_comes_along_and_where_it_can_not_everything_else_does(
    checkout: Checkout,
) -> None:
    checkout.require("1.0", lock="requirements-ocr.lock", package="tinyocr")
    python = checkout.root / ".venv" / "bin" / "python"
    assert checkout.run()[0] == 0
    assert subprocess.run([python, "-c", "import tinyocr"], check=False).returncode == 0
    assert checkout.run()[2] == ""

    (checkout.root / "requirements-ocr.lock").write_text(f"tinyocr==2.0 --hash=sha256:{'0' * 64}\n")
    code, out, err = checkout.run()
    assert (code, out.split()[0]) == (0, "1.0")
    assert "installing requirements-ocr.lock failed" in err
    assert "going on without it" in err
    assert checkout.run()[2] == "", "it is not tried again and again"
    code, out, err = checkout.run("bootstrap", "--ocr")
    assert code == 1
    assert "going on without it" not in err


def test_two_first_runs_at_once_both_work(checkout: Checkout) -> None:
    both = [checkout.start("status") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [out.split()[0] for out, _ in said] == ["1.0", "1.0"]
    assert sum("making .venv" in err for _, err in said) == 1


def test_an_interrupted_installation_is_begun_anew(checkout: Checkout) -> None:
    checkout.run()
    (checkout.root / ".venv" / "unfinished").touch()
    code, out, err = checkout.run()
    assert (code, out.split()[0]) == (0, "1.0")
    assert "making .venv" in err


def test_a_wrong_hash_installs_nothing_and_shows_what_pip_said(checkout: Checkout) -> None:
    lock = checkout.root / "requirements.lock"
    lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    code, out, err = checkout.run()
    assert (code, out) == (1, "")
    assert "installing requirements.lock failed" in err
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in err
    checkout.require("1.0")
    assert checkout.run()[0] == 0


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            '[ "$1" = -V ] && echo "Python 3.9.2" || exit 1',
            "Python 3.11 or newer is needed, found Python 3.9.2",
        ),
        ("exit 127", "Python 3.11 or newer is needed, found none"),
        (
            'case "$2" in *ensurepip*) exit 1;; esac; [ "$1" != -V ] || echo "Python 3.12.1"',
            "lacks its venv module",
        ),
    ],
)
def test_a_python_that_will_not_do_is_one_clear_line(
    checkout: Checkout, tmp_path: Path, script: str, said: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    code, out, err = checkout.run(CARGOFLOW_PYTHON=str(python))
    assert (code, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (checkout.root / ".venv").exists()
