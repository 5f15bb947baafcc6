"""Which labs there are, and what is said of those that there are not."""

from pathlib import Path

import pytest

from routemesh.errors import NotFound, UserError
from routemesh.lab import find
from routemesh.lab.find import Lab
from routemesh.model import Role


@pytest.fixture(autouse=True)
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of our own for labs, with none chosen."""
    monkeypatch.setattr(find, "LABS", tmp_path)
    monkeypatch.delenv(find.NAME_VARIABLE, raising=False)
    return tmp_path


def made(name: str, nodes: int = 3, managers: int = 3) -> Lab:
    lab = Lab(name=name, nodes=nodes, managers=managers, engine="auto", mtu_bytes=1500)
    lab.directory.mkdir()
    lab.save()
    return lab


def test_a_saved_lab_is_found_again() -> None:
    lab = made("one", nodes=2, managers=1)
    assert find.load("one") == lab
    assert find.running_labs() == [lab]


def test_a_lab_that_is_taken_down_while_one_looks_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made("gone")
    stays, read = made("stays"), find._read

    def read_late(path: Path) -> Lab:
        if path.parent.name == "gone":
            path.unlink()
        return read(path)

    monkeypatch.setattr(find, "_read", read_late)
    assert find.running_labs() == [stays]


def test_managers_come_first() -> None:
    lab = made("one", nodes=3, managers=2)
    assert [lab.node(name).role for name in lab.node_names] == [Role.MANAGER, Role.MANAGER, Role.WORKER]


def test_an_unknown_node_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"^lab one has no node node4; it has node1, node2, node3$"):
        made("one").node("node4")


def test_without_any_lab_the_error_says_how_to_make_it() -> None:
    with pytest.raises(NotFound, match=r"^there is no lab one; make it with 'routemesh lab up --name one'$"):
        find.load("one")


def test_with_others_the_error_names_them() -> None:
    made("two")
    with pytest.raises(NotFound, match=r"^there is no lab one; choose two with --name or ROUTEMESH_LAB$"):
        find.load("one")


def test_a_half_made_lab_can_be_removed_but_not_used(labs: Path) -> None:
    (labs / "one").mkdir()
    with pytest.raises(NotFound, match=r"^lab one is only half made; remove it with 'routemesh lab down --name one'$"):
        find.load("one")
    with find.locked("one"):
        pass


@pytest.mark.parametrize("name", ["", "../x", "a/b", "Lab", "-x", "a" * 33, "ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="can't be a lab's name"):
        find.load(name)


def test_the_only_lab_is_the_default() -> None:
    assert find.default_socket() is None
    lab = made("one")
    assert find.default_socket() == lab.directory / "node1" / "routemesh.sock"


def test_of_several_labs_none_is_the_default_until_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    made("one")
    two = made("two")
    assert find.default_socket() is None
    monkeypatch.setenv(find.NAME_VARIABLE, "two")
    assert find.default_socket() == two.node("node1").socket
    monkeypatch.setenv(find.NAME_VARIABLE, "three")
    assert find.default_socket() is None


@pytest.mark.parametrize(("nodes", "managers", "members"), [(1, 1, 1), (2, 2, 1), (3, 3, 3), (9, 5, 3), (9, 2, 1)])
def test_etcd_has_a_member_on_three_managers_or_on_one(nodes: int, managers: int, members: int) -> None:
    lab = Lab(name="one", nodes=nodes, managers=managers, engine="auto", mtu_bytes=1500, store="etcd")
    assert lab.members == lab.node_names[:members]
    assert lab.node("node1").store.count(":2379") == members
    assert lab.node("node1").keys.key == lab.etcd_directory("node1") / "key.pem"


def test_a_lab_of_an_older_version_has_a_file(labs: Path) -> None:
    (labs / "old").mkdir()
    (labs / "old" / "lab.json").write_text('{"name": "old", "nodes": 1, "managers": 1, "engine": "auto", "mtu_bytes": 1500}')
    lab = find.load("old")
    assert lab.members == () and lab.node("node1").store == f"sqlite:{labs}/old/state.db"
