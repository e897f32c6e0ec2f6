"""The configuration of services that run alone: what is wrong in it is one sentence that names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairway.cli import exits
from fairway.cli.main import run
from fairway.cli.serve_proxy import read_config
from fairway.proxy.errors import OptionError


@pytest.mark.parametrize(
    ("service", "text", "said"),
    [
        ("job-queue", "token_file: 5\n", "token_file: expected `str`, got `int`"),
        ("job-queue", "listen: [a]\n", "listen: expected `str`, got `array`"),
        ("job-queue", "listen: nowhere\n", "expected listen as HOST:PORT, got 'nowhere'"),
        ("job-queue", "max_payload: lots\n", "max_payload: expected `int`, got `str`"),
        ("job-queue", "max_payload: -1\n", "max_payload: expected `int` >= 1"),
        ("job-queue", "queues: 5\n", "queues: expected `array"),
        ("job-queue", "queues: [mail, a b]\n", "queues[1]: expected `str` matching regex"),
        ("job-queue", "tasks: 5\n", "tasks: expected `str"),
        ("job-queue", "store: 5\n", "store: expected `str`, got `int`"),
        ("job-queue", "- store\n", "got list"),
        ("job-queue", "stor: x\n", "got stor"),
        ("event-bus", "store: [x]\n", "store: expected `str`, got `array`"),
        ("event-bus", "retention: {keep: -1d}\n", "retention.keep"),
    ],
)
def test_a_bad_configuration_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, service: str, text: str, said: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert run(["serve", service, "--config", str(path)]) in {exits.USAGE, exits.FAILED}
    error = capsys.readouterr().err
    assert said in error
    assert "unexpectedly" not in error


def test_a_token_file_that_is_no_text_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    assert run(["serve", "job-queue", "--token-file", str(tmp_path / "token")]) == exits.USAGE
    assert "expected text in UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expected `object`, got `null`"),
        ("[", "did not find expected node"),
        ("routes: {version: x}\n", "Expected `int`, got `str` - at `$.routes.version`"),
        ("routes: {version: 1, routes: []}\nbogus: 1\n", "unknown field `bogus`"),
        ("routes: {version: 1, routes: []}\ndoor: {listen: 5}\n", "at `$.door.listen`"),
        (None, "cannot read"),
    ],
)
def test_a_bad_configuration_of_the_door_alone_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OptionError, match=r"config\.yaml") as caught:
        read_config(path)
    assert said in str(caught.value)


def test_the_configuration_beside_the_service_is_sound() -> None:
    door, table = read_config(Path(__file__).parents[3] / "services" / "reverse-proxy" / "config.yaml")
    assert door.listen == "127.0.0.1:8080"
    assert [route.name for route in table.routes] == ["app", "old"]


@pytest.mark.parametrize("weight", ["²", "x", "-1", "1.5"])
def test_a_weight_that_is_no_number_is_named(capsys: pytest.CaptureFixture[str], weight: str) -> None:
    assert run(["worker", "nowhere.tasks", "-q", f"mail={weight}"]) == exits.USAGE
    assert "expected NAME or NAME=WEIGHT with a whole number" in capsys.readouterr().err
