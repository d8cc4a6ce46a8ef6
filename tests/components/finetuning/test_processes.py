"""Several processes give the losses and the weights of one, and go on from each other's checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.data.packing import pack_branches
from components.errors import InputError, TunewrightError
from components.finetuning import saving
from components.finetuning.bottleneck import BottleneckSettings
from components.finetuning.finetune import DevSettings, StoppedError, finetune
from components.finetuning.full import FullSettings
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import find_method
from components.finetuning.processes import PARALLEL, Processes, current_processes, share_of, work_as_forward
from components.finetuning.prompt_tuning import SoftPromptSettings
from components.finetuning.schedule import Schedule
from components.models.load import load_model
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings, uneven_rows

ROOT = Path(__file__).parents[3]
METHODS = {
    "lora": {"attachment": LoraSettings(rank=4)},
    "dora": {"attachment": LoraSettings(rank=4, dora=True)},
    "full": {"method": "full", "attachment": FullSettings(), "learning_rate": 2e-3},
    "bottleneck": {"method": "bottleneck", "attachment": BottleneckSettings(8)},
    "prefix_tuning": {"method": "prefix_tuning", "attachment": SoftPromptSettings(4), "learning_rate": 1e-2},
    "prompt_tuning": {"method": "prompt_tuning", "attachment": SoftPromptSettings(4), "learning_rate": 1e-1},
    "p_tuning": {"method": "p_tuning", "attachment": SoftPromptSettings(4), "learning_rate": 1e-2},
}
# four steps of five sequences, which don't go round two processes
STEPS = {"rows_per_sequence": 1, "micro_batch_size": 1, "gradient_accumulation_steps": 5, "epochs": 2.0}
# what is asked of two processes, besides each method with its parts: (method, way, changes)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"{method} fsdp": (method, "fsdp", {}) for method in METHODS},
    "lora ddp": ("lora", "ddp", {}),
    "full ddp": ("full", "ddp", {}),
    "full fsdp, blocks computed again": ("full", "fsdp", {"gradient_checkpointing": True}),
    "full fsdp, a head of its own": ("full", "fsdp", {"untied": True}),
    "full ddp, a head of its own": ("full", "ddp", {"untied": True}),
    "lora fsdp in bfloat16": ("lora", "fsdp", {"dtype": "bfloat16"}),
    "full fsdp in bfloat16": ("full", "fsdp", {"dtype": "bfloat16"}),
}
# of losses and of gradient norms; gathered in 16 bits, the weights outside the products are rounded too; beside an
# adapter in float32 the products are
TOLERANCE = {"full fsdp in bfloat16": (2e-3, 2e-2), "lora fsdp in bfloat16": (1e-5, 1e-4)}
OVERFLOWING = {"method": "full", "parallel": "fsdp", "dtype": "float16", "scale": 2.0**19, "epochs": 4.0}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two bases, one with a head of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("bases")
    make_tiny(folder / "tied")
    untied = make_tiny(folder / "untied")
    config = LlamaConfig.from_pretrained(untied)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(untied)
    return folder


def train(
    bases: Path, folder: Path, method: str, parallel: str = "ddp", stop_at: int | None = None, **changes: Any
) -> dict[str, Any]:
    """Train; called in children too.

    Only the first process is asked to stop: a signal may reach one alone.
    """
    done = iter(range(1, 10**6))
    scale, untied = changes.pop("scale", None), changes.pop("untied", False)
    if scale is not None:
        torch.amp.GradScaler.__init__.__defaults__ = ("cuda", scale, 2.0, 0.5, 2000, True)
    try:
        found = finetune(
            # three dev rows, which don't go round two processes either
            bases / ("untied" if untied else "tied"), uneven_rows(10), rows(3),
            settings(**{**STEPS, **METHODS[method], **changes}),
            run_folder=folder, identity={"data": "d"}, checkpoint_steps=3, parallel=parallel, dev=DevSettings(2),
            stop=lambda: next(done) == stop_at and os.environ.get("RANK", "0") == "0",
        )  # fmt: skip
    except StoppedError as stopped:
        return {"stopped": stopped.step}
    return {
        "losses": [entry["loss"] for entry in found.losses],
        "norms": [entry["gradient_norm"] for entry in found.losses],
        "dev": [entry["loss"] for entry in found.dev],
        "resumed": found.resumed_from,
    }


def train_all(bases: Path, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Train one run after the other in a process that came up once."""
    return [train(bases, Path(one.pop("folder")), **one) for one in asked]


def in_two_processes(bases: Path, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run `train_all` in two processes over gloo on loopback; both have to find the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from tests.components.finetuning.test_processes import train_all;"
        "print(json.dumps(train_all(Path(sys.argv[2]), json.loads(sys.argv[3]))))"
    )
    arguments = [str(ROOT), str(bases), json.dumps(asked)]
    children = []
    for rank in range(2):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        environment = {name: str(value) for name, value in places.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        children.append(subprocess.Popen(command, env={**os.environ, **environment}, text=True, **pipes))
    found = []
    try:
        for child in children:
            out, err = child.communicate(timeout=280)
            assert child.returncode == 0, err
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for child in children:
            child.kill()
            child.wait()
    one, other = found
    assert one == other
    return one


@pytest.fixture(scope="module")
def runs(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def by_two(bases: Path, runs: Path) -> dict[str, dict[str, Any]]:
    """Return what two processes found of each case, and of runs that were stopped."""
    asked = [
        {"folder": str(runs / name), "method": method, "parallel": parallel, **changes}
        for name, (method, parallel, changes) in CASES.items()
    ]
    stopped = [
        {"folder": str(runs / f"stopped {method} {parallel}"), "method": method, "parallel": parallel, "stop_at": 2}
        for method, parallel in STOPPED
    ]
    overflowing = {"folder": str(runs / "overflowing"), **OVERFLOWING}
    found = in_two_processes(bases, [*asked, *stopped, overflowing])
    names = [*CASES, *(f"stopped {method} {parallel}" for method, parallel in STOPPED), "overflowing"]
    return dict(zip(names, found, strict=True))


STOPPED = (("lora", "ddp"), ("lora", "fsdp"), ("full", "fsdp"))


@pytest.fixture(scope="module")
def alone(bases: Path, runs: Path) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """Return a function that trains in this process, each run once."""
    seen: dict[str, dict[str, Any]] = {}

    def once(method: str, changes: dict[str, Any]) -> dict[str, Any]:
        name = f"alone {method} {json.dumps(changes)}".replace("/", "")
        if name not in seen:
            seen[name] = {**train(bases, runs / name, method, **changes), "folder": runs / name}
        return seen[name]

    return once


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = [*folder.glob("adapter/*.safetensors"), *folder.glob("full/*.safetensors")]
    return load_file(path)


def test_no_sequence_is_lost_and_none_counts_twice() -> None:
    sequences = [pack_branches([1, 2], [([3 + n], [1.0])]) for n in range(5)]
    schedule = Schedule([[sequences[:2], sequences[2:4], sequences[4:]]], 5, 15, [[1]])
    shares = [share_of(schedule, Processes(rank, 2), 2) for rank in range(2)]
    assert [[len(micro_batch) for micro_batch in share[0]] for share in shares] == [[2, 1], [2, 1]]
    seen = [s for share in shares for micro_batch in share[0] for s in micro_batch if sum(s.weights)]
    assert sorted(s.input_ids[-1] for s in seen) == [3, 4, 5, 6, 7]
    assert share_of(schedule, Processes(), 2) is schedule.steps


@pytest.mark.parametrize("values", [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_a_launchers_variables_must_fit_each_other(monkeypatch: pytest.MonkeyPatch, values: tuple[str, str]) -> None:
    monkeypatch.setenv("RANK", values[0])
    monkeypatch.setenv("WORLD_SIZE", values[1])
    with pytest.raises(InputError, match="of WORLD_SIZE"):
        current_processes()


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_losses_norms_and_weights_of_one(
    by_two: dict[str, dict[str, Any]], alone: Any, runs: Path, case: str
) -> None:
    method, _, changes = CASES[case]
    one, two = alone(method, changes), by_two[case]
    losses, norms = TOLERANCE.get(case, (1e-6, 1e-5))
    for kind in ("losses", "dev"):
        assert two[kind] == pytest.approx(one[kind], rel=losses)
    assert two["norms"] == pytest.approx(one["norms"], rel=norms)
    if case not in TOLERANCE:
        expected, found = weights(one["folder"]), weights(runs / case)
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


@pytest.mark.integration
def test_an_overflow_in_one_part_skips_the_step_in_all(by_two: dict[str, dict[str, Any]]) -> None:
    found = by_two["overflowing"]
    skipped = [norm is None for norm in found["norms"]]
    # the scale is halved until it fits, and nothing was learned meanwhile
    assert skipped == sorted(skipped, reverse=True)
    assert 1 <= sum(skipped) <= 4
    assert found["losses"][-1] < found["losses"][0] - 0.1


@pytest.mark.integration
def test_a_checkpoint_goes_on_with_another_number_of_processes_and_another_way(
    bases: Path, by_two: dict[str, dict[str, Any]], alone: Any, runs: Path
) -> None:
    resumed: list[tuple[str, dict[str, Any]]] = []
    onward = []
    for method, parallel in STOPPED:
        name = f"stopped {method} {parallel}"
        assert by_two[name] == {"stopped": 2}
        other = "fsdp" if parallel == "ddp" else "ddp"
        shutil.copytree(runs / name, runs / f"{name}, then {other}")
        onward.append({"folder": str(runs / f"{name}, then {other}"), "method": method, "parallel": other})
        resumed.append((method, train(bases, runs / name, method)))
    for method in ("lora", "full"):
        folder = runs / f"one, then two {method}"
        assert train(bases, folder, method, stop_at=2) == {"stopped": 2}
        onward.append({"folder": str(folder), "method": method, "parallel": "fsdp"})
    resumed += zip([one["method"] for one in onward], in_two_processes(bases, onward), strict=True)
    assert len(resumed) == 8
    for method, found in resumed:
        assert found["resumed"] == 2
        assert found["losses"] == pytest.approx(alone(method, {})["losses"], rel=1e-6)


LAUNCHED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.components.finetuning.test_processes import current_processes, train
found = train(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])
if current_processes().first:
    found["processes"] = current_processes().count
    Path(sys.argv[3], "found.json").write_text(json.dumps(found))
"""


# ending with the option for the port
LAUNCHERS = {
    "torchrun": "torch.distributed.run --nproc-per-node 2 --master-addr 127.0.0.1 --master-port",
    # --multi_gpu: what starts several processes, with or without a GPU; --cpu starts one
    "accelerate": "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no "
    "--dynamo_backend no --main_process_port",
}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("launcher", "method", "parallel"), [("torchrun", "lora", "ddp"), ("accelerate", "full", "fsdp")]
)
def test_other_launchers_start_it_too(
    bases: Path, tmp_path: Path, alone: Any, launcher: str, method: str, parallel: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "script.py").write_text(LAUNCHED)
    given = [str(tmp_path / "script.py"), str(ROOT), str(bases), str(tmp_path / "run"), method, parallel]
    command = [sys.executable, "-W", "ignore", "-m", *LAUNCHERS[launcher].split(), str(port), *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "run" / "found.json").read_text())
    assert found["processes"] == 2
    assert found["losses"] == pytest.approx(alone(method, {})["losses"], rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "qlora", "attachment": LoraSettings(rank=4)}, "weights in 4 bits"),
        ({"optimizer": "adamw_8bit", "attachment": LoraSettings(rank=4)}, "bitsandbytes"),
        ({"method": "full", "attachment": FullSettings("int4")}, "quantization_aware int4"),
    ],
)
def test_what_cannot_be_parted_is_refused_before_anything_is_loaded(
    bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=said) as refused:
        finetune(
            bases / "tied", rows(2), [], settings(**changes), run_folder=tmp_path / "run", identity={}, parallel="fsdp"
        )
    assert "ddp" in str(refused.value) or "plan" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_deep_weights_that_were_gathered_in_16_bits_are_put_together(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "deep", layers=30)
    trained = load_model(base)
    state = {name: value.detach().clone() for name, value in trained.named_parameters()}
    state["model.layers.29.mlp.down_proj.weight"] += 0.01
    chosen = settings(**METHODS["full"], dtype="bfloat16")
    probe = pack_branches(list(range(5, 25)), [(list(range(30, 60)), [1.0] * 30)])
    parted = load_model(base)
    for name, parameter in parted.named_parameters():
        parameter.data = state[name].bfloat16()
    # behind thirty blocks in 16 bits logits are far from those of the same weights in float32
    found = saving.rebuild(
        base, find_method("full", FullSettings()), chosen, state, probe, saving.probed(parted, probe)
    )
    assert {value.dtype for value in found.parameters()} == {torch.float32}
    assert torch.equal(dict(found.named_parameters())["model.layers.29.mlp.down_proj.weight"],
                       state["model.layers.29.mlp.down_proj.weight"])  # fmt: skip
    state["model.layers.3.mlp.down_proj.weight"] += 1.0
    with pytest.raises(TunewrightError, match="the gathered weights give other logits"):
        saving.rebuild(base, find_method("full", FullSettings()), chosen, state, probe, saving.probed(parted, probe))


def test_a_model_within_such_work_can_be_called_as_a_model(bases: Path) -> None:
    model = load_model(bases / "tied")
    ids = torch.tensor([[5, 6, 7]])
    plain = model(input_ids=ids).logits
    with work_as_forward(model, Processes(0, 2)):
        assert model(lambda same, one: (same is model, one), 1) == (True, 1)
        assert torch.equal(model(input_ids=ids).logits, plain)
        assert model.generate(ids, max_new_tokens=2, do_sample=False).shape == (1, 5)
    assert "forward" not in vars(model)


def test_another_way_than_these_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PARALLEL == ("ddp", "fsdp")
    with pytest.raises(InputError, match="in parallel by 'tp'"):
        current_processes("tp")
