"""`fairway add`: the entry that is written is one that loads, and nothing is overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairway.apps.entry import EntryError, write
from fairway.apps.places import VARIABLE, Places, tree_root, trust, trust_file, trusted_folders
from fairway.apps.registry import load


@pytest.fixture(autouse=True)
def own_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / ".git").mkdir(parents=True)
    (root / "apps" / "My_Shop 2").mkdir(parents=True)
    return root


def test_an_app_of_the_repository_gets_a_relative_source(repository: Path) -> None:
    registry = repository / "compose" / "app-registry"
    path = write(registry, repository / "apps" / "My_Shop 2")
    assert path == registry / "my-shop-2.yaml"
    assert "source: '../../apps/My_Shop 2'" in path.read_text()
    loaded = load(registry)
    assert loaded.problems == []
    assert loaded.apps["my-shop-2"].source == repository / "apps" / "My_Shop 2"
    assert trusted_folders() == ()


def test_a_registry_that_cannot_be_made_is_said(repository: Path) -> None:
    (repository / "compose").write_text("")
    with pytest.raises(EntryError, match="expected to make the folder") as caught:
        write(repository / "compose" / "app-registry", repository / "apps" / "My_Shop 2")
    assert caught.value.code == "registry.unwritable"


def test_a_folder_name_becomes_a_name_of_plain_letters(repository: Path) -> None:
    folder = repository / "apps" / "Größe 项目 é"
    folder.mkdir()
    assert write(repository / "registry", folder).name == "grosse-e.yaml"


def test_an_app_elsewhere_is_let_in_by_adding_it(repository: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "app"
    elsewhere.mkdir(parents=True)
    registry = repository / "registry"
    path = write(registry, elsewhere, "other")
    assert f"source: {elsewhere}" in path.read_text()
    assert load(registry).apps["other"].source == elsewhere
    assert trust_file().stat().st_mode & 0o777 == 0o600
    # The same file in somebody else's hands is refused.
    refused = load(registry, trusted=())
    assert [p.code for p in refused.problems] == ["registry.outside_tree"]
    assert not trust(elsewhere / "sub")


def test_the_variable_lets_in_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/srv/a:relative:/:/srv/b")
    assert trusted_folders() == (Path("/srv/a"), Path("/srv/b"))


def test_nothing_is_overwritten(repository: Path) -> None:
    registry = repository / "registry"
    app = repository / "apps" / "My_Shop 2"
    path = write(registry, app, "shop")
    before = path.read_text()
    other = repository / "apps" / "other"
    other.mkdir()
    with pytest.raises(EntryError, match="is shop in") as caught:
        write(registry, app, "again")
    assert caught.value.code == "registry.exists"
    with pytest.raises(EntryError, match="'shop' is taken"):
        write(registry, other, "shop")
    (registry / "broken.yml").write_text("nonsense: [")
    with pytest.raises(EntryError, match="there is one"):
        write(registry, other, "broken")
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["Shop", "a_b", "", "../x"])
def test_a_bad_name_is_refused(repository: Path, name: str) -> None:
    with pytest.raises(EntryError, match="as the app's name"):
        write(repository / "registry", repository / "apps" / "My_Shop 2", name)


def test_what_is_no_folder_is_refused(repository: Path) -> None:
    with pytest.raises(EntryError, match="expected a folder"):
        write(repository / "registry", repository / "none")
    strange = repository / "项目"
    strange.mkdir()
    with pytest.raises(EntryError, match="expected a folder name"):
        write(repository / "registry", strange)


@pytest.mark.parametrize("name", [b"new\nline", b"bell\x07", b"\xe2\x80\xaeback", b"latin-\xff"])
def test_a_folder_that_no_entry_can_name_is_refused(repository: Path, name: bytes) -> None:
    folder = repository / os.fsdecode(name)
    folder.mkdir()
    with pytest.raises(EntryError, match="expected a path in UTF-8 without control"):
        write(repository / "registry", folder, "app")
    assert not (repository / "registry" / "app.yaml").exists()


def test_the_root_of_all_is_no_app(repository: Path) -> None:
    with pytest.raises(EntryError, match="the root of all"):
        write(repository / "registry", Path("/"), "everything")
    assert trusted_folders() == ()


def test_the_tree_of_a_registry(tmp_path: Path) -> None:
    registry = tmp_path / "compose" / "app-registry"
    registry.mkdir(parents=True)
    assert tree_root(registry) == tmp_path
    plain = tmp_path / "x" / "registry"
    plain.mkdir(parents=True)
    assert tree_root(plain) == tmp_path / "x"
    (tmp_path / ".git").mkdir()
    assert tree_root(plain) == tmp_path
    assert repr(Places(plain, ())) == f"<Places of {plain} in {tmp_path}>"
