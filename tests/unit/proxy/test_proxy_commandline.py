"""A worker's command line: what is read without argparse is what argparse reads."""

from __future__ import annotations

import pytest

from fairway.platform.doorplan import DoorPlan, DoorSetup
from fairway.platform.layout import Layout
from fairway.platform.machine import Machine
from fairway.platform.state import StateStore
from fairway.proxy import commandline
from fairway.proxy.errors import OptionError

PLAIN = [
    "",
    "--listen 127.0.0.1:80 --socket /run/door-0.sock --await-routes",
    "--listen [::1]:80 --reuse-port --access-log /logs/access.0.log --access-log-sample 0.25",
    "--tls-listen :443 --certificates /tls --acme-challenges /tls/acme",
    "--trusted 10.0.0.0/8 --trusted 192.168.0.0/16,fd00::/8",
]
NOT_PLAIN = [
    "--listen",
    "--listen=127.0.0.1:80",
    "--liste 127.0.0.1:80",
    "--access-log -",
    "--access-log-sample much",
    "--await-routes --metrics :9100",
    "--route shop.localhost=127.0.0.1:9000",
    "--help",
    "shop",
]


@pytest.mark.parametrize("line", PLAIN)
def test_plain_arguments_are_read_as_argparse_reads_them(line: str) -> None:
    words = line.split()
    assert commandline.read_plain(words) == commandline.options_of(commandline.parser().parse_args(words))


@pytest.mark.parametrize("line", NOT_PLAIN)
def test_everything_else_is_left_to_argparse(line: str) -> None:
    assert commandline.read_plain(line.split()) is None


def test_all_that_a_daemon_gives_to_a_worker_is_plain(tmp_path) -> None:
    layout = Layout(tmp_path / ".fairway")
    layout.create()
    state = StateStore(layout.database)
    setup = DoorSetup(access_log=0.5, trusted=("10.0.0.0/8", "fd00::/8"))
    words = DoorPlan(Machine(layout, state), ("::1", 8080), 2, setup)._arguments(1)
    state.close()
    read = commandline.read_plain(words)
    assert read is not None
    assert (read.listen, read.reuse_port, read.await_routes) == ("[::1]:8080", True, True)
    assert (read.access_log_sample, read.trusted) == (0.5, ("10.0.0.0/8", "fd00::/8"))
    assert read.state == layout.door_socket(1).with_name(layout.door_socket(1).name + ".table.json")


@pytest.mark.parametrize("line", ["--listen nowhere", "--trusted everybody", "--access-log-sample 2"])
def test_what_is_wrong_is_said_as_ever(line: str, capsys) -> None:
    with pytest.raises(OptionError) as told:
        commandline.options_of(commandline.parser().parse_args(line.split()))
    assert commandline.main(line.split()) == 2
    assert capsys.readouterr().err == f"fairway door: {told.value}\n"
