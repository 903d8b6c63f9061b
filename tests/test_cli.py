"""The command line as a whole: how fast it answers, what Ctrl-C does, the commands no other test runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import COMMAND, sgseg_command
from sgseg.anatomy import Laterality
from sgseg.cli import app
from sgseg.data import phantom, read_cases


@pytest.mark.parametrize(
    "first", ["import sgseg", "from sgseg.cli import app; app(['--help'], standalone_mode=False)"]
)
def test_it_answers_at_once(first: str) -> None:
    """Nothing is imported that takes longer than the answer; a time would be the machine's."""
    slow = "{'numpy', 'PIL', 'onnxruntime', 'torch', 'matplotlib', 'fastapi'}"
    code = f"{first}; import sys; assert not {slow} & set(sys.modules), {slow} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    import sgseg

    done = sgseg_command("--version")
    assert done.stdout == f"sgseg {sgseg.__version__}\n"


def test_interrupted_prediction_keeps_what_it_has(tmp_path: Path) -> None:
    for i in range(400):
        # Links, so that there is work for seconds without drawing for seconds.
        path = tmp_path / "in" / f"{i:03d}.png"
        if i == 0:
            path.parent.mkdir()
            Image.fromarray(phantom.draw(5).pixels).save(path)
        else:
            path.symlink_to(tmp_path / "in" / "000.png")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "predict", str(tmp_path / "in"), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # nohup has it ignored
    )
    while not list(out.glob("*_overlay.png")):
        assert process.poll() is None, "it ended before it was interrupted"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors and "Traceback" not in errors
    document = json.loads((out / "predictions.json").read_text())
    assert 1 <= len(document["images"]) < 400
    assert all((out / entry["mask"]).is_file() for entry in document["images"])


def test_data_phantom_draws_what_training_reads(tmp_path: Path) -> None:
    arguments = ["data", "phantom", str(tmp_path / "d"), "--train", "3", "--valid", "2", "--test", "0"]
    assert sgseg_command(*arguments, "--size", "64").returncode == 0
    assert [len(read_cases(tmp_path / "d", split)) for split in ("train", "valid")] == [3, 2]
    again = sgseg_command(*arguments)
    assert again.returncode == 1
    assert "not an empty folder" in again.stderr


class CalledError(Exception):
    """What a command called, in place of the long work."""


def called(monkeypatch: pytest.MonkeyPatch, function: str, *command: str) -> tuple[Any, ...]:
    """The arguments with which a command calls a function of the package."""

    def instead(*arguments: Any) -> None:
        raise CalledError(arguments)

    monkeypatch.setattr(function, instead)
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, CalledError), result.output
    arguments: tuple[Any, ...] = result.exception.args[0]
    return arguments


def test_serve_hands_on_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="the service needs fastapi: pip install 'sgseg[serve]'")
    line = "serve --host 0.0.0.0 --port 9 --api-key k --threshold 0.4 --upload-mib 2 --megapixels 3"
    more = "--requests 4 --timeout 5 --kept-images 6"
    predictor, host, port, limits, key, _ = called(
        monkeypatch, "sgseg.serving.run", *line.split(), *more.split()
    )
    assert (predictor.threshold, host, port, key) == (0.4, "0.0.0.0", 9, "k")
    assert (limits.upload_bytes, limits.pixels) == (2 * 2**20, 3_000_000)
    assert (limits.requests, limits.seconds, limits.kept_images) == (4, 5, 6)


def test_export_hands_on_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="exporting needs torch: pip install 'sgseg[train]'")
    line = "export RUN --out OUT --data DATA --version 9 --choices MODEL"
    arguments = called(monkeypatch, "sgseg.export.export_run", *line.split())
    assert arguments == (Path("RUN"), Path("OUT"), Path("DATA"), "9", Path("MODEL"))


def test_refine_hands_on_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "data refine TABLE --out OUT --laterality image"
    arguments = called(monkeypatch, "sgseg.batch.refine.refine_table", *line.split())
    assert arguments == (Path("TABLE"), Path("OUT"), Laterality.IMAGE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "give a configuration"),
        (["train", "sgseg-compact", "--out", "o"], "add data.root=DIR"),
        (["train", "sgseg-compact", "data.root=nowhere", "--out", "o"], "nowhere is not a folder"),
        (["train", "--resume", "nowhere"], "nowhere is not a run"),
        (["evaluate", "--data", "nowhere"], "nowhere is not a folder"),
        (["analyse", "--data", "nowhere", "--out", "o", "--ledger", "no/x.csv"], "there is no folder no"),
        (["evaluate", "--data", "nowhere", "--run", "r"], "r has no weights.safetensors"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = sgseg_command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "something was begun"
