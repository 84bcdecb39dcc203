import hashlib
import io
import os
import stat
import tarfile
import zipfile

import pytest

from mmllm.data import packages

MEMBER = "package/icons.json"


@pytest.fixture
def tarball():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        info = tarfile.TarInfo(MEMBER)
        info.size = 2
        bundle.addfile(info, io.BytesIO(b"{}"))
    return buffer.getvalue()


@pytest.fixture
def registry(monkeypatch, tmp_path, tarball):
    """A stand-in npm on PATH that copies one tarball and counts its calls."""
    served = tmp_path / "served.tgz"
    served.write_bytes(tarball)
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\necho call >> {tmp_path}/calls\n"
        f'n=$(wc -l < {tmp_path}/calls)\nif [ "$n" -le "$(cat {tmp_path}/failures)" ]; then\n'
        f"echo 'npm error network is down' >&2; exit 1; fi\ncp {served} toy-1.0.tgz\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "failures").write_text("0")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MMLLM_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "RETRY_SECONDS", 0.0)
    digest = hashlib.sha256(tarball).hexdigest()
    toy = packages.Package("@scope/toy", "npm", "1.0", digest, "MIT", "Toy")
    monkeypatch.setitem(packages.PACKAGES, toy.name, toy)
    return tmp_path


def calls(registry):
    path = registry / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def quiet(line):
    pass


def test_a_package_is_downloaded_and_unpacked_once(registry):
    folder = packages.fetch("@scope/toy", quiet)
    assert (folder / "icons.json").read_text() == "{}"
    assert packages.fetch("@scope/toy", quiet) == folder
    assert calls(registry) == 1


def test_a_finished_download_is_unpacked_again_without_the_network(registry):
    folder = packages.fetch("@scope/toy", quiet)
    (folder / "icons.json").unlink()
    folder.rmdir()
    assert (packages.fetch("@scope/toy", quiet) / "icons.json").exists()
    assert calls(registry) == 1


def test_a_broken_download_is_retried(registry):
    (registry / "failures").write_text("2")
    lines = []
    packages.fetch("@scope/toy", lines.append)
    assert calls(registry) == 3
    assert "attempt 3 of 3: npm exited with 1: npm error network is down" in lines[-2]


def test_a_download_that_keeps_failing_is_one_clear_error(registry):
    (registry / "failures").write_text("9")
    with pytest.raises(
        packages.BrokenDownload, match="refused after 3 attempts: npm exited"
    ) as info:
        packages.fetch("@scope/toy", quiet)
    assert "\n" not in str(info.value)


def test_a_wrong_checksum_is_refused_and_nothing_is_left(registry):
    (registry / "served.tgz").write_bytes(b"not what was pinned")
    with pytest.raises(packages.BrokenDownload, match="sha256 [0-9a-f]{64} arrived"):
        packages.fetch("@scope/toy", quiet)
    assert [path for path in (registry / "cache").rglob("*") if path.is_file()] == []


def test_a_damaged_archive_in_the_cache_is_downloaded_again(registry):
    folder = packages.fetch("@scope/toy", quiet)
    (folder / "icons.json").unlink()
    folder.rmdir()
    (archive,) = (registry / "cache").rglob("*.tgz")
    archive.write_bytes(b"flipped")
    assert (packages.fetch("@scope/toy", quiet) / "icons.json").exists()
    assert calls(registry) == 2


def test_a_tarball_cannot_write_outside_its_folder(registry):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        info = tarfile.TarInfo("../../outside")
        info.size = 1
        bundle.addfile(info, io.BytesIO(b"x"))
    archive = registry / "evil.tgz"
    archive.write_bytes(buffer.getvalue())
    with pytest.raises(tarfile.OutsideDestinationError):
        packages._unpack(archive, registry / "cache" / "evil")
    assert not (registry / "outside").exists()


def test_a_wheel_is_unpacked_as_it_is(tmp_path):
    archive = tmp_path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("toy/data.txt", "1")
    packages._unpack(archive, tmp_path / "toy")
    assert (tmp_path / "toy" / "toy" / "data.txt").read_text() == "1"


def test_a_missing_client_is_named_with_its_remedy(registry, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert packages.missing_clients(["@scope/toy"], ["rsvg-convert"]) == ["rsvg-convert", "npm"]
    with pytest.raises(packages.MissingClient, match="'npm' is not on this machine: install Node"):
        packages.fetch("@scope/toy", quiet)


def test_an_unpinned_package_is_refused():
    with pytest.raises(ValueError, match="'left-pad' is not pinned"):
        packages.fetch("left-pad", quiet)


def test_every_pin_is_complete():
    for name, package in packages.PACKAGES.items():
        assert package.name == name
        assert package.kind in packages.CLIENTS
        assert len(bytes.fromhex(package.sha256)) == 32
        assert package.version
        assert package.licence
        assert package.title
