import subprocess
import sys


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "unetkit", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("unetkit ")


def test_its_exit_code_reaches_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "unetkit", "nothing"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
