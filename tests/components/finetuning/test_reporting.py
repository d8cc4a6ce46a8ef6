"""TensorBoard, MLflow and W&B show what the terminal shows, and training is the same with and without them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from components.errors import InputError
from components.finetuning import reporting
from components.finetuning.finetune import DevSettings, FinetuneResult, StoppedError, finetune
from components.finetuning.reporting import Reporting, check_reporting, reported
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return run(base, tmp_path_factory.mktemp("plain") / "run")


def run(base: Path, folder: Path, *to: str, **changes: Any) -> FinetuneResult:
    return finetune(
        base, rows(), rows(4), settings(), run_folder=folder, identity={}, checkpoint_steps=4,
        dev=DevSettings(passes=3), reporting=Reporting(to, "sql", "run-1"), **changes,
    )  # fmt: skip


def weights(result: FinetuneResult) -> bytes:
    return (result.weights / "adapter_model.safetensors").read_bytes()


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """Return what TensorBoard would draw: name -> step -> value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {
        name: {event.step: event.value for event in read.Scalars(name)}
        for name in read.Tags()["scalars"]
    }  # fmt: skip


def check_curves(found: dict[str, dict[int, float]], result: FinetuneResult) -> None:
    """Hold drawn curves against the result's own figures."""
    names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "gradient_norm", "peak_bytes": "peak_bytes",
             "tokens_per_second": "tokens_per_second"}  # fmt: skip
    for name, key in names.items():
        expected = {entry["step"]: pytest.approx(entry[key], rel=1e-6) for entry in result.losses}
        assert found[f"train/{name}"] == expected, name
    assert found["eval/loss"] == {entry["step"]: pytest.approx(entry["loss"], rel=1e-6) for entry in result.dev}


def test_tensorboard_draws_every_figure_and_changes_no_weight(
    base: Path, tmp_path: Path, plain: FinetuneResult
) -> None:
    pytest.importorskip("tensorboard")
    result = run(base, tmp_path / "run", "tensorboard")
    check_curves(curves(tmp_path / "run" / "tensorboard"), result)
    assert weights(result) == weights(plain)
    assert result.dev == plain.dev
    # nowhere else
    assert not (tmp_path / "run" / "runs").exists()


def killed(base: Path, folder: Path) -> None:
    """Train in a process that is killed the hard way after step 6; called in a child."""
    run(
        base, folder, "tensorboard",
        progress=lambda log: os.kill(os.getpid(), signal.SIGKILL) if log["step"] == 7 else None,
    )  # fmt: skip


def test_the_curves_of_a_killed_run_go_on_where_it_goes_on(base: Path, tmp_path: Path, plain: FinetuneResult) -> None:
    pytest.importorskip("tensorboard")
    script = (
        "from pathlib import Path; import sys; sys.path.insert(0, sys.argv[3]);"
        "from tests.components.finetuning.test_reporting import killed; killed(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    here, folder = str(Path(__file__).parents[3]), tmp_path / "run"
    child = subprocess.run([sys.executable, "-c", script, str(base), str(folder), here], timeout=300)
    assert child.returncode == -signal.SIGKILL
    events = len(list((folder / "tensorboard").iterdir()))
    # TensorBoard orders files by the whole second in their names
    time.sleep(1.1)
    result = run(base, folder, "tensorboard")
    assert result.resumed_from == 4
    assert len(list((folder / "tensorboard").iterdir())) == events + 1
    check_curves(curves(folder / "tensorboard"), result)
    assert weights(result) == weights(plain)


@pytest.mark.parametrize("server", [True, False])
def test_mlflow_keeps_the_figures_in_a_store_beside_the_runs_or_where_it_is_told(
    base: Path, tmp_path: Path, plain: FinetuneResult, monkeypatch: pytest.MonkeyPatch, server: bool
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path}/elsewhere.db" if server else f"sqlite:///{tmp_path}/runs/mlflow.db"
    if server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    result = run(base, tmp_path / "runs" / "run", "mlflow")
    assert weights(result) == weights(plain)
    client = mlflow.MlflowClient(store)
    (kept,) = client.search_runs([client.get_experiment_by_name("sql").experiment_id])
    assert (kept.info.run_name, kept.info.status) == ("run-1", "FINISHED")

    def history(name: str) -> dict[int, float]:
        return {point.step: point.value for point in client.get_metric_history(kept.info.run_id, name)}

    assert history("loss") == {entry["step"]: pytest.approx(entry["loss"]) for entry in result.losses}
    assert history("peak_bytes") == {entry["step"]: entry["peak_bytes"] for entry in result.losses}
    assert history("eval_loss") == {entry["step"]: pytest.approx(entry["loss"]) for entry in result.dev}
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "mlruns").exists()


def test_a_run_that_is_stopped_is_closed_with_mlflow(base: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    with pytest.raises(StoppedError):
        run(base, tmp_path / "run", "mlflow", stop=lambda: True)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (kept,) = client.search_runs([client.get_experiment_by_name("sql").experiment_id])
    assert kept.info.status == "FAILED"
    assert mlflow.active_run() is None


def test_an_mlflow_server_that_is_not_there_is_told_after_one_retry(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv(RETRIES, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    asked: list[str | None] = []
    send = requests.Session.request

    def spy(self: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(os.environ.get(RETRIES))
        return send(self, *arguments, **named)

    monkeypatch.setattr(requests.Session, "request", spy)
    with pytest.raises(InputError, match="MLflow can't be told") as refused:
        run(base, tmp_path / "run", "mlflow")
    assert "secret" not in str(refused.value)
    assert asked
    assert set(asked) == {"1"}
    assert RETRIES not in os.environ


class Stand:
    """What transformers' callback and ours ask of wandb's module; keeps what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: dict[str, Any] = {}
        self.logged: list[dict[str, float]] = []
        self.exit_code: int | None = None
        module = types.ModuleType("wandb")
        module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
        values = {
            "run": None, "config": {}, "errors": types.SimpleNamespace(Error=RuntimeError), "init": self.init,
            "log": self.logged.append, "finish": self.finish,
        }  # fmt: skip
        vars(module).update(values)
        self.module: Any = module
        config_util = types.ModuleType("wandb.sdk.lib.config_util")
        vars(config_util)["ConfigError"] = KeyError
        for name, value in (
            ("wandb", module),
            ("wandb.sdk", types.ModuleType("wandb.sdk")),
            ("wandb.sdk.lib", types.ModuleType("wandb.sdk.lib")),
            ("wandb.sdk.lib.config_util", config_util),
        ):
            monkeypatch.setitem(sys.modules, name, value)

    def init(self, **opened: Any) -> None:
        assert not self.opened, "the callback opened a run of its own"
        self.opened = opened
        self.module.run = types.SimpleNamespace(_label=lambda **_: None, summary={})

    def finish(self, exit_code: int) -> None:
        self.exit_code, self.module.run = exit_code, None


def check_logged(logged: list[dict[str, float]], result: FinetuneResult) -> None:
    """Hold what W&B was told of each step and each measurement against the result's own figures."""
    names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "gradient_norm", "peak_bytes": "peak_bytes",
             "tokens_per_second": "tokens_per_second"}  # fmt: skip
    for name, key in names.items():
        told = {data["train/global_step"]: data[f"train/{name}"] for data in logged if f"train/{name}" in data}
        assert told == {entry["step"]: entry[key] for entry in result.losses}, name
    told = {data["train/global_step"]: data["eval/loss"] for data in logged if "eval/loss" in data}
    assert told == {entry["step"]: entry["loss"] for entry in result.dev}


def test_wandb_is_told_every_figure_of_a_run_and_how_it_ended(
    base: Path, tmp_path: Path, plain: FinetuneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    result = run(base, tmp_path / "run", "wandb")
    assert weights(result) == weights(plain)
    assert {key: stand.opened[key] for key in ("project", "name", "dir")} == {
        "project": "sql", "name": "run-1", "dir": tmp_path / "run",
    }  # fmt: skip
    check_logged(stand.logged, result)
    assert (stand.exit_code, stand.module.run) == (0, None)


def test_a_run_that_is_stopped_is_closed_with_wandb_as_failed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(monkeypatch)
    with pytest.raises(StoppedError):
        run(base, tmp_path / "run", "wandb", stop=lambda: True)
    assert (stand.exit_code, stand.module.run) == (1, None)


def offline_run(folder: Path) -> tuple[list[dict[str, float]], tuple[str, str], int]:
    """Read the file of W&B's one offline run: what was logged, project and name, exit code."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    (path,) = folder.glob("offline-run-*/run-*.wandb")
    store = DataStore()
    store.open_for_scan(str(path))
    logged, named, ended = [], ("", ""), -1
    while (content := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = ((item.key or ".".join(item.nested_key), item.value_json) for item in record.history.item)
            logged.append({name: json.loads(value) for name, value in items})
        elif kind == "run":
            named = (record.run.project, record.run.display_name)
        elif kind == "exit":
            ended = record.exit.exit_code
    return logged, named, ended


def test_wandb_keeps_the_run_below_its_folder_when_it_is_offline(
    base: Path, tmp_path: Path, plain: FinetuneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = run(base, tmp_path / "runs" / "run", "wandb")
    assert weights(result) == weights(plain)
    assert wandb.run is None
    assert not (tmp_path / "wandb").exists()
    # what is on the disk, as `wandb sync` would send it
    logged, named, ended = offline_run(tmp_path / "runs" / "run" / "wandb")
    check_logged(logged, result)
    assert (named, ended) == (("sql", "run-1"), 0)


def test_wandb_without_a_login_is_told_before_the_base_is_loaded(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what an earlier test left of its session
    pytest.importorskip("wandb").teardown()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("components.models.load.load_model", lambda *_, **__: pytest.fail("the base was loaded"))
    with pytest.raises(InputError, match="W&B can't be told of the run") as caught:
        run(base, tmp_path / "run", "wandb")
    assert "WANDB_MODE=offline" in str(caught.value.next_step)


def test_a_reporters_error_is_told_without_the_password_in_its_uri() -> None:
    with pytest.raises(InputError) as caught, reporting._told("MLflow", ConnectionError, "check MLFLOW_TRACKING_URI"):
        raise ConnectionError("API request to http://somebody:hush@127.0.0.1:9/api failed")
    assert "MLflow can't be told of the run: API request to http://…@127.0.0.1:9/api failed" in str(caught.value)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("open_run", [check_reporting, lambda to: reported(Reporting(to), Path()).__enter__()])
def test_a_reporter_that_is_not_installed_says_what_to_install(
    open_run: Callable[[tuple[str, ...]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else found(name, *rest)
    )
    with pytest.raises(InputError, match=r"finetune\.report_to has mlflow, which is not installed") as caught:
        open_run(("mlflow",))
    assert "pip install" in str(caught.value.next_step)
    assert "'.[mlflow]'" in str(caught.value.next_step)
    with pytest.raises(InputError, match="no reporter 'clearml'"):
        open_run(("clearml",))


@pytest.mark.parametrize("password", ["secret", "se/cret", "se@cret", "se#cr?et"])
def test_no_password_of_an_address_is_told(password: str) -> None:
    problem = ValueError(f"no route to postgresql://ann:{password}@db.example/mlflow")
    with pytest.raises(InputError) as refused, reporting._told("MLflow", ValueError, "check it"):
        raise problem
    assert "cret" not in str(refused.value)
    assert "://…@db.example/mlflow" in str(refused.value)
