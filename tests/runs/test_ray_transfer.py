"""What travels between a session and a node of a Ray cluster, without the cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from builders import make_record, small_runs
from peft_methods.methods.base import TRAINED
from peft_methods.runs.executors.devices import Resources
from peft_methods.runs.executors.jobs import Done, Failure, RunJob
from peft_methods.runs.executors.ray.delivery import (
    Inbox,
    files_for,
    local_paths,
    on_node,
    without_its_files,
)
from peft_methods.runs.executors.ray.messages import (
    PIECE_BYTES,
    FilePiece,
    Files,
    LogPiece,
    Piece,
    Place,
    message_pieces,
)
from peft_methods.runs.executors.ray.node import NodeWorker
from peft_methods.runs.executors.ray.outbox import Outbox
from peft_methods.runs.executors.scratch import RunFolder
from peft_methods.runs.record import Record
from peft_methods.runs.requests import RunRequests
from peft_methods.runs.store import Store

MIB = 2**20


@pytest.fixture
def requests(tmp_path: Path) -> RunRequests:
    store = Store(tmp_path / "results")
    store.prepare()
    return RunRequests(
        store, RunFolder(store), "cpu", Resources(0, 1), tmp_path / "models", checkpoint=True
    )


@pytest.fixture
def job(requests: RunRequests, tiny_recipe: Path) -> RunJob:
    (run,) = small_runs(tiny_recipe, "head_only")
    return requests.run_job(run, {})


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    for name in ("store", "work", "model", "prerequisites"):
        (folder / name).mkdir(parents=True)
    return folder


def place(folder: Path, *missing: str) -> Place:
    return Place("gpu-7", folder, ("GPU-a",), "/", missing)


def sent(pieces: Iterable[Piece], inbox: Inbox) -> str:
    """Let pieces arrive; return what was printed."""
    log = b""
    for piece in pieces:
        if isinstance(piece, FilePiece):
            inbox.write(piece)
        elif isinstance(piece, Files):
            inbox.keep_checkpoints(piece.names)
        elif isinstance(piece, LogPiece):
            log += piece.content
    return log.decode()


def test_no_piece_is_large_enough_for_rays_object_store(node: Path) -> None:
    limit = 100 * 1024  # Ray's, for a value that is sent with the reply
    (node / "model" / "m.safetensors").write_bytes(bytes(3 * MIB))
    pieces = [*Outbox(node).at_end(), *message_pieces(bytes(MIB))]
    assert max(len(piece.content) for piece in pieces) <= PIECE_BYTES < limit  # type: ignore[union-attr]
    assert [piece.last for piece in message_pieces(b"x" * (PIECE_BYTES + 1))] == [False, True]
    assert list(message_pieces(b"")) == []


def test_job_on_a_node_uses_only_folders_of_the_node(job: RunJob, node: Path) -> None:
    job = replace(job, prerequisites=(Path("/a"), Path("/b")))
    there = on_node(job, place(node))
    assert isinstance(there, RunJob)
    assert there.devices.gpus == ("GPU-a",)
    assert there.save_to is not None
    folders = (there.work, there.store, there.log, there.save_to, *there.prerequisites)
    assert all(path.is_relative_to(node) for path in folders)
    assert len(set(there.prerequisites)) == 2


def test_environment_that_a_node_gets_holds_no_paths(
    job: RunJob, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HOME", "/home/me/models")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    there = on_node(job, place(node)).environment
    assert there["HF_TOKEN"] == "secret"
    assert not {"HF_HOME", "CUDA_VISIBLE_DEVICES", "PATH", "HOME"} & there.keys()


def test_record_predictions_and_model_arrive(
    job: RunJob, node: Path, requests: RunRequests, make_ok: Callable[[RunJob], Record]
) -> None:
    record = make_ok(job)
    outbox = Outbox(node)
    Store(node / "store").write(record)
    (node / "model" / "sub").mkdir()
    for name, content in (("sub/w.bin", b"w" * MIB), ("fingerprint.txt", b"f")):
        (node / "model" / name).write_bytes(content)
    (node / "log.txt").write_text("printed\n", encoding="utf-8")
    inbox = Inbox(job, requests.folder.path / "arrived")
    assert sent(outbox.at_end(), inbox) == "printed\n"
    done = inbox.deliver(Done(record), outbox.files)
    assert done.not_stored == ""
    stored = requests.store.find(record.fingerprint)
    assert stored is not None
    assert requests.store.damage_of_files(stored, stored.files) == ""
    assert job.save_to is not None
    assert (job.save_to / "sub" / "w.bin").stat().st_size == MIB
    assert (job.save_to / "fingerprint.txt").read_text(encoding="utf-8") == "f"


def test_weights_of_a_prerequisite_arrive_where_its_dependents_look(
    job: RunJob, node: Path, requests: RunRequests, make_ok: Callable[[RunJob], Record]
) -> None:
    job = replace(job, run=replace(job.run, role="prerequisite"))
    record, weights = make_ok(job), node / "work" / TRAINED
    weights.write_bytes(b"w" * MIB)
    outbox = Outbox(node)
    Store(node / "store").write(record, None, weights)
    inbox = Inbox(job, requests.folder.path / "arrived")
    sent(outbox.at_end(), inbox)
    inbox.deliver(Done(record), outbox.files)
    assert (job.work / TRAINED).read_bytes() == weights.read_bytes()
    dependent = replace(job, prerequisites=(job.work,))
    assert ("prerequisites/0/trained.safetensors", job.work / TRAINED) in list(files_for(dependent))


@pytest.mark.parametrize("lost", [0, 1, -1])
def test_piece_that_is_lost_on_the_way_is_noticed(
    job: RunJob, node: Path, requests: RunRequests, make_ok: Callable[[RunJob], Record], lost: int
) -> None:
    job = replace(job, run=replace(job.run, role="prerequisite"))
    record, weights = make_ok(job), node / "work" / TRAINED
    weights.write_bytes(b"w" * MIB)
    outbox = Outbox(node)
    Store(node / "store").write(record, None, weights)
    inbox = Inbox(job, requests.folder.path / "arrived")
    pieces = list(outbox.at_end())
    del pieces[lost]
    sent(pieces, inbox)
    assert "arrive" in inbox.deliver(Done(record), outbox.files).not_stored
    assert requests.store.find(record.fingerprint) is None


def test_checkpoints_arrive_while_the_job_runs_and_older_ones_go(
    job: RunJob, node: Path, requests: RunRequests
) -> None:
    there = node / "store" / "checkpoints" / job.run.key
    here = requests.store.checkpoints_of(job.run.key)
    there.mkdir(parents=True)
    (there / "epoch-1.safetensors").write_bytes(b"1" * MIB)
    outbox, inbox = Outbox(node), Inbox(job, requests.folder.path / "arrived")
    assert list(outbox.meanwhile()) == []  # the session sent this one
    for epoch in (2, 3):
        (there / f".epoch-{epoch}-half.safetensors").write_bytes(b"")
        (there / f"epoch-{epoch}.safetensors").write_bytes(str(epoch).encode() * MIB)
        (there / f"epoch-{epoch - 1}.safetensors").unlink()
        sent(outbox.meanwhile(), inbox)
        (arrived,) = here.iterdir()
        assert arrived.name == f"epoch-{epoch}.safetensors"
        assert arrived.stat().st_size == MIB
    names = [name for name, _ in files_for(job)]
    assert names == [f"store/checkpoints/{job.run.key}/epoch-3.safetensors"]
    (there / "epoch-3.safetensors").unlink()  # as a finished run does, before its record is here
    sent(outbox.meanwhile(), inbox)
    assert list(here.iterdir())


def test_file_that_is_deleted_while_it_is_sent_arrives_whole(
    job: RunJob, node: Path, requests: RunRequests
) -> None:
    there = node / "store" / "checkpoints" / job.run.key
    there.mkdir(parents=True)
    outbox, inbox = Outbox(node), Inbox(job, requests.folder.path / "arrived")
    (there / "epoch-1.safetensors").write_bytes(b"1" * MIB)
    pieces = outbox.meanwhile()
    first = next(pieces)
    (there / "epoch-1.safetensors").unlink()
    sent([first, *pieces], inbox)
    (arrived,) = requests.store.checkpoints_of(job.run.key).iterdir()
    assert arrived.stat().st_size == MIB


def test_full_disk_here_costs_the_stored_result_and_says_so(
    job: RunJob, requests: RunRequests, make_ok: Callable[[RunJob], Record]
) -> None:
    blocked = requests.folder.path / "arrived"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    inbox = Inbox(job, blocked)
    inbox.write(FilePiece("store/x.npz", b"x", 0, last=True))
    assert "cannot be written here" in inbox.deliver(Done(make_ok(job)), 1).not_stored


@pytest.fixture
def node_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeWorker:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return NodeWorker()


def test_worker_has_no_folder_before_the_session_knows_its_place(node_worker: NodeWorker) -> None:
    """An interrupted session kills a worker that has not answered."""
    folder = node_worker.place("/", ()).folder
    assert list(folder.parents[1].iterdir()) == []
    node_worker.write("work/file", 0, b"x")
    assert (folder / "work" / "file").read_bytes() == b"x"
    node_worker.close()
    assert not folder.parent.exists()


@pytest.mark.parametrize("end", ["stop", "close"])
def test_what_arrives_after_the_end_of_a_job_is_dropped(node_worker: NodeWorker, end: str) -> None:
    folder = node_worker.place("/", ()).folder
    node_worker.write("work/file", 0, b"x")
    getattr(node_worker, end)()
    node_worker.write("work/file", 0, b"x")
    assert list(node_worker.run(b"")) == []
    assert not folder.exists()
    node_worker.close()
    assert not folder.parent.exists()


def test_worker_that_closes_while_its_job_is_cleared_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(20):
        worker = NodeWorker()
        place = worker.place("/", ())
        for number in range(50):
            worker.write(f"work/{number}", 0, b"x")
        end = threading.Thread(target=worker._clear, args=(None, place.folder))
        end.start()
        worker.close()
        end.join()
        assert not place.folder.parent.exists()


# Local paths


def test_local_paths_are_named_by_their_settings(job: RunJob) -> None:
    recipe = job.run.recipe
    assert local_paths(job) == {
        "model.source": recipe.model.source,
        "data.source": recipe.data.source,
    }


def test_hub_ids_are_no_local_paths(job: RunJob) -> None:
    recipe = replace(
        job.run.recipe,
        model=replace(job.run.recipe.model, source="FacebookAI/roberta-base"),
        data=replace(job.run.recipe.data, source="bundled:movie_reviews"),
    )
    assert local_paths(replace(job, run=replace(job.run, recipe=recipe))) == {}


def test_missing_path_is_named_with_its_node(job: RunJob, node: Path) -> None:
    path = local_paths(job)["data.source"]
    done = without_its_files(job, place(node, path))
    assert isinstance(done.result, Record)
    assert done.result.status == "failed"
    assert done.result.message.startswith(f"data.source: {path} does not exist on node gpu-7. ")
    assert Store(job.store).find(done.result.fingerprint) is not None


def test_missing_path_of_a_check_is_the_users_mistake(
    requests: RunRequests, job: RunJob, node: Path
) -> None:
    check = requests.prepare_job(job.run.recipe, [job.run.method])
    path = local_paths(check)["model.source"]
    result = without_its_files(check, place(node, path)).result
    assert isinstance(result, Failure)
    assert result.by_user
    assert result.setting == "model.source"


@pytest.fixture
def make_ok() -> Callable[[RunJob], Record]:
    def make(job: RunJob) -> Record:
        return replace(make_record(), spec=job.run)

    return make
