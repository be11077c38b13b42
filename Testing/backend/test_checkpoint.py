"""Weights on disk and over the network: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pddnet.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    load_features,
    load_network,
    save_checkpoint,
)
from pddnet.features.obelisk import Obelisk, ObeliskConfig
from pddnet.network import Level, PddNet
from pddnet.published_weights import (
    PublishedWeights,
    cache_folder,
    fetch_weights,
    published_weights,
)
from pddnet.regularisation import PUBLISHED_WEIGHTS, RegularisationWeights

CONFIG = ObeliskConfig(channels=3, offsets=4, hidden=4, groups=2, edge_channels=2)


def trained() -> PddNet:
    network = PddNet(CONFIG, RegularisationWeights(1.5, 0.2, 0.9, -0.4, 0.1, 2.0), reduction="mean")
    network.features.batch1.running_var.uniform_(0.5, 2.0)
    return network.eval()


def saved(folder: Path) -> Path:
    path = folder / "weights.pt"
    save_checkpoint(path, Checkpoint.of(trained(), licence="Apache-2.0", training_note="two phantoms"))
    return path


def altered(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = saved(folder)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_a_network_read_back_computes_what_the_saved_one_did(tmp_path: Path) -> None:
    network, path = trained(), tmp_path / "weights.pt"
    save_checkpoint(path, Checkpoint.of(network, licence="CC0", training_note="two phantoms"))
    again = load_network(path)
    images, level = torch.randn(2, 1, 1, 9, 10, 11), Level.cubic(3, 3, 0.2)
    with torch.no_grad():
        expected = network(*images, level).probabilities
        assert torch.equal(again(*images, level).probabilities, expected)
        features = again.features(images[0])
        assert (PddNet(CONFIG).eval().features(images[0]) - features).abs().mean() > 0.1 * features.std()
    assert not again.training
    checkpoint = load_checkpoint(path)
    assert (checkpoint.licence, checkpoint.training_note) == ("CC0", "two phantoms")
    assert checkpoint.features == CONFIG
    assert checkpoint.reduction == "mean"


def test_the_features_alone_come_from_the_same_file(tmp_path: Path) -> None:
    image = torch.randn(1, 1, 9, 9, 9)
    path = saved(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_features(path)(image), load_network(path).features(image))


def test_the_hash_covers_every_tensor_and_the_configuration_but_not_the_notes() -> None:
    checkpoint = Checkpoint.of(trained(), licence="CC0")
    for name, tensor in checkpoint.state.items():
        changed = {**checkpoint.state, name: tensor + 1}
        assert replace(checkpoint, state=changed).sha256 != checkpoint.sha256, name
    assert replace(checkpoint, reduction="sum").sha256 != checkpoint.sha256
    assert replace(checkpoint, features=replace(CONFIG, axis_order="xyz")).sha256 != checkpoint.sha256
    assert replace(checkpoint, licence="MIT", training_note="other").sha256 == checkpoint.sha256


def test_a_checkpoint_is_a_copy_of_the_network(tmp_path: Path) -> None:
    network = trained()
    checkpoint = Checkpoint.of(network, licence="CC0")
    before = checkpoint.sha256
    with torch.no_grad():
        network.regularisation.sharpness.fill_(9.0)
    assert checkpoint.sha256 == before
    assert tmp_path.exists()


def test_saving_replaces_the_file_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path)
    saved(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        saved(tmp_path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]


def set_key(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(key, value)


def set_tensor(name: str, tensor: torch.Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["state"].__setitem__(name, tensor)


def set_feature(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["config"]["features"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_key("format", "other"), "no checkpoint of ours"),
        (set_key("version", 2), "version 2; this pddnet reads"),
        (set_key("sha256", "0" * 64), "SHA-256 it was saved with"),
        (set_tensor("features.layer3.bias", torch.ones(3)), "SHA-256 it was saved with"),
        (set_tensor("features.layer3.bias", torch.ones(4)), r"\(4,\) for features.layer3.bias"),
        (set_tensor("features.layer3.bias", torch.ones(3, dtype=torch.float64)), "for features.layer3.bias"),
        (set_tensor("extra", torch.ones(3)), "does not hold the tensors"),
        (lambda content: content["state"].pop("features.offsets"), "does not hold the tensors"),
        (set_key("state", [1]), "does not hold the tensors"),
        (lambda content: content.pop("licence"), "has the entries"),
        (set_key("surprise", 1), "has the entries"),
        (set_key("config", {}), "configuration that cannot be used"),
        (set_key("config", [1, 2]), "configuration that cannot be used"),
        (set_feature("groups", 3), "groups is 3"),
        (set_feature("unknown", 3), "configuration that cannot be used"),
        (set_feature("axis_order", "xyz"), "SHA-256 it was saved with"),
        (lambda content: content["config"].__setitem__("reduction", "max"), "reduction is 'max'"),
    ],
)
def test_a_checkpoint_that_is_not_what_it_says_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(altered(tmp_path, change))


@pytest.mark.parametrize("content", [b"", b"not weights\n", b"PK\x03\x04 cut off", b"\x80\x02}q\x00."])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        load_network(path)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {1: torch.ones(3)}, {"layer": torch.ones(3)}])
def test_tensors_of_something_else_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"is needed|are needed|neither"):
        load_network(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_network(path)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_network(path, expected_sha256="0" * 64)


class _Opens:
    """Pickles to a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    torch.save({"format": "pddnet-checkpoint", "state": _Opens(trace)}, path)
    with pytest.raises(CheckpointError, match="damaged or no weights file"):
        load_network(path)
    assert not trace.exists()


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("whole"))


@examples(max_examples=40)
@given(fraction=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_refused(whole_file: Path, fraction: float) -> None:
    content = whole_file.read_bytes()
    cut = whole_file.with_name("cut.pt")
    cut.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(CheckpointError):
        load_checkpoint(cut)


@examples(max_examples=60)
@given(fraction=st.floats(0, 0.999), flip=st.integers(1, 255))
def test_a_changed_byte_never_gives_other_weights(whole_file: Path, fraction: float, flip: int) -> None:
    content = bytearray(whole_file.read_bytes())
    content[int(fraction * len(content))] ^= flip
    changed = whole_file.with_name("changed.pt")
    changed.write_bytes(content)
    try:
        found = load_checkpoint(changed)
    except CheckpointError:
        return
    assert found.sha256 == load_checkpoint(whole_file).sha256  # a byte that nobody reads


def test_published_feature_weights_load_with_the_published_regularisation(tmp_path: Path) -> None:
    config = ObeliskConfig(channels=24, offsets=48, hidden=48, groups=4, axis_order="xyz")
    source, path = Obelisk(config), tmp_path / "published.pth"
    torch.save(source.state_dict(), path)
    network = load_network(path)
    assert network.features.config == config
    assert network.regularisation.sharpness.item() == pytest.approx(PUBLISHED_WEIGHTS.sharpness)
    assert torch.equal(network.features.offsets, source.offsets)


def test_a_file_with_another_hash_than_expected_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert isinstance(load_features(path, expected_sha256=right.upper()), Obelisk)
    with pytest.raises(CheckpointError, match="does not have the SHA-256"):
        load_features(path, expected_sha256="0" * 64)


class _Server(http.server.BaseHTTPRequestHandler):
    """Serves /good, /other (wrong bytes), /short (fewer than announced), /long (more than promised)."""

    body = b"weights" * 20_000

    def do_GET(self) -> None:
        answers = {
            "/good": (self.body, len(self.body)),
            "/other": (self.body[::-1], len(self.body)),
            "/short": (self.body[:1000], len(self.body)),
            "/long": (self.body * 3, 3 * len(self.body)),
        }
        if self.path not in answers:
            self.send_error(404)
            return
        body, announced = answers[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the client had enough of /long

    def log_message(self, *_: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def offered(url: str) -> dict[str, PublishedWeights]:
    digest = hashlib.sha256(_Server.body).hexdigest()
    return {"some": PublishedWeights("some", "some.pth", digest, len(_Server.body), "words", "CC0", url)}


def test_weights_are_fetched_once_and_kept(address: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cache"
    path = fetch_weights("some", folder, manifest=offered(f"{address}/good"))
    assert path == folder / "some.pth"
    assert path.read_bytes() == _Server.body
    assert fetch_weights("some", folder, manifest=offered(f"{address}/gone")) == path
    assert [file.name for file in folder.iterdir()] == ["some.pth"]


def test_a_damaged_copy_is_fetched_again(address: str, tmp_path: Path) -> None:
    (tmp_path / "some.pth").write_bytes(b"damaged")
    fetch_weights("some", tmp_path, manifest=offered(f"{address}/good"))
    assert (tmp_path / "some.pth").read_bytes() == _Server.body


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("other", "gave 140000 bytes that are not"),
        ("short", "gave 1000 bytes that are not|IncompleteRead"),
        ("long", "bytes that are not"),
        ("gone", "cannot be downloaded .*404"),
    ],
)
def test_a_bad_download_leaves_nothing_and_says_what_to_do(
    address: str, tmp_path: Path, page: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch_weights("some", tmp_path, manifest=offered(f"{address}/{page}"))
    assert f"{address}/{page}" in str(caught.value)
    assert str(tmp_path / "some.pth") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_connection_the_message_says_where_the_file_goes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be downloaded.*save it as .*some\.pth"):
        fetch_weights("some", tmp_path, manifest=offered("http://127.0.0.1:9/good"))
    assert list(tmp_path.iterdir()) == []


def test_a_download_can_be_ended(address: str, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_weights("some", tmp_path, manifest=offered(f"{address}/good"), between_chunks=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'other'; one of deeds-v01, feat-v01, mind2"):
        fetch_weights("other", tmp_path)


def test_the_manifest_names_the_three_published_files_completely() -> None:
    known = published_weights()
    assert sorted(known) == ["deeds-v01", "feat-v01", "mind2"]
    for weights in known.values():
        assert weights.url == f"https://github.com/multimodallearning/pdd_net/raw/master/{weights.file}"
        assert len(bytes.fromhex(weights.sha256)) == 32
        assert weights.licence == "Apache-2.0"
        assert weights.size > 0


def test_a_name_loads_what_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDDNET_CACHE", str(tmp_path))
    path = saved(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = PublishedWeights("mine", path.name, digest, path.stat().st_size, "", "", "http://127.0.0.1:9/")
    monkeypatch.setattr("pddnet.checkpoint.published_weights", lambda: {"mine": entry})
    monkeypatch.setattr("pddnet.published_weights.published_weights", lambda: {"mine": entry})
    assert load_features("mine").config == CONFIG


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PDDNET_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PDDNET_CACHE")
    assert "pddnet" in cache_folder().parts
