"""Running commands: outputs, failures, time limits."""

import pickle
import signal
import sys
import time
from pathlib import Path

import pytest

from cluster.process import CommandError, last_lines, run
from recipes.errors import ClusterError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_outputs_and_status_come_back() -> None:
    done = run(python("import sys; print('out'); print('é', file=sys.stderr)"), timeout_s=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "é\n")


def test_env_is_added_to_our_own_and_cwd_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOAL_OURS", "kept")
    code = "import os; print(os.environ['SHOAL_OURS'], os.environ['SHOAL_MORE'], os.getcwd())"
    done = run(python(code), timeout_s=30, env={"SHOAL_MORE": "added"}, cwd=tmp_path)
    assert done.stdout.split() == ["kept", "added", str(tmp_path.resolve())]


def test_failure_names_command_status_and_last_lines() -> None:
    code = "import sys; [print('line', i, file=sys.stderr) for i in range(50)]; sys.exit(3)"
    with pytest.raises(CommandError) as caught:
        run(python(code), timeout_s=30)
    error = caught.value
    assert isinstance(error, ClusterError)
    assert error.returncode == 3
    assert error.command == tuple(python(code))
    assert error.stderr.splitlines() == [f"line {i}" for i in range(42, 50)]
    assert "failed with status 3" in str(error) and "line 49" in str(error)


def test_failure_is_returned_when_not_checked() -> None:
    assert run(python("raise SystemExit(4)"), timeout_s=30, check=False).returncode == 4


def test_command_that_is_not_there() -> None:
    with pytest.raises(CommandError, match=r"`no-such-command --now` cannot be started") as caught:
        run(["no-such-command", "--now"], timeout_s=30)
    assert caught.value.returncode is None


def test_time_limit_ends_the_children_too(tmp_path: Path) -> None:
    # The grandchild holds the pipes open for a minute and would then leave a file behind.
    grandchild = "import time, pathlib; time.sleep(60); pathlib.Path('alive').touch()"
    code = (
        "import subprocess, sys, time; print('before', file=sys.stderr, flush=True);"
        f"subprocess.Popen([sys.executable, '-c', {grandchild!r}]); time.sleep(60)"
    )
    begin = time.monotonic()
    with pytest.raises(CommandError, match=r"was stopped after 1\.5 s") as caught:
        run(python(code), timeout_s=1.5, cwd=tmp_path)
    assert time.monotonic() - begin < 30
    assert caught.value.stderr == "before"


def test_killed_by_signal_is_a_negative_status() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    assert run(python(code), timeout_s=30, check=False).returncode == -signal.SIGTERM


def test_nothing_to_read_and_no_shell() -> None:
    code = "import sys; print(repr(sys.stdin.read()), sys.argv[1])"
    done = run([*python(code), "$HOME; echo"], timeout_s=30)
    assert done.stdout == "'' $HOME; echo\n"


def test_error_survives_pickling() -> None:
    error = CommandError(["scancel", "a b"], 1, "failed with status 1", "no such job\n")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.command, again.returncode) == (
        "`scancel 'a b'` failed with status 1:\nno such job",
        ("scancel", "a b"),
        1,
    )


def test_last_lines_skips_blank_ones() -> None:
    assert last_lines("a\n\n  b  \n\nc\n\n", 2) == "  b\nc"
