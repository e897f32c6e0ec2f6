"""Signatures, and the addresses that a webhook may lead to."""

import pytest

from fairway.events.webhook import (
    BlockedAddress,
    Webhook,
    WebhookError,
    check_address,
    check_url,
    new_secret,
    sign,
    verify,
)

SECRET = new_secret()


def test_a_signature_verifies_and_nothing_else_does() -> None:
    headers = {
        "webhook-id": "i",
        "webhook-timestamp": "1000",
        "webhook-signature": "v1,x " + sign(SECRET, "i", 1000, b"b"),
    }
    verify(SECRET, headers, b"b", 1100.0)
    for changed, body, secret, now in [
        ({}, b"c", SECRET, 1100.0),
        ({"webhook-id": "j"}, b"b", SECRET, 1100.0),
        ({"webhook-timestamp": "1001"}, b"b", SECRET, 1100.0),
        ({"webhook-timestamp": "x"}, b"b", SECRET, 1100.0),
        ({"webhook-signature": ""}, b"b", SECRET, 1100.0),
        ({}, b"b", new_secret(), 1100.0),
        ({}, b"b", SECRET, 1301.0),
        ({}, b"b", SECRET, 699.0),
    ]:
        with pytest.raises(WebhookError):
            verify(secret, {**headers, **changed}, body, now)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "::",
        "ff02::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a9fe:a9fe",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "fec0::1",
    ],
)
def test_an_address_that_is_not_public_is_blocked(address: str) -> None:
    with pytest.raises(BlockedAddress):
        check_address(address, allow_private=False)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "0.0.0.0",
        "fe80::1",
        "224.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254",
    ],
)
def test_some_are_blocked_whatever_is_allowed(address: str) -> None:
    with pytest.raises(BlockedAddress) as caught:
        check_address(address, allow_private=True)
    assert caught.value.hint == "no webhook may send there"


def test_public_ones_pass_and_private_ones_where_allowed() -> None:
    check_address("93.184.216.34", allow_private=False)
    check_address("2606:2800:220:1::1", allow_private=False)
    check_address("127.0.0.1", allow_private=True)
    check_address("10.0.0.1", allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x.test",
        "file:///etc/passwd",
        "x.test",
        "http://",
        "http://user:secret@x.test",
        "http://x.test:99999",
        "http://x.test/a b",
        "http://x.test/\n",
        "http://127.0.0.1/",
        "http://[::1]:80/",
        "http://１２７.0.0.1/",
        "http://①②⑦.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://localhost:8080/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://x.test:0/",
    ],
)
def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(WebhookError) as caught:
        check_url(url, allow_private=False)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"name": "A b"}, {"max_attempts": 0}, {"secret": "whsec_short"}, {"secret": "?"}],
    ids=lambda f: next(iter(f)),
)
def test_a_bad_webhook_names_the_field(fields) -> None:
    with pytest.raises(WebhookError) as caught:
        Webhook(**{"name": "n", "url": "https://x.test", **fields}).check()
    assert caught.value.field == next(iter(fields))


def test_a_secret_is_made_up_and_never_shown() -> None:
    webhook = Webhook(name="n", url="https://x.test").check()
    assert webhook.secret.startswith("whsec_")
    assert webhook.secret not in repr(webhook)
