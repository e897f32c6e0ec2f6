"""The generated tree, to the letter, for each version that reads differently.

After a wanted change: ``FAIRWAY_GOLDEN=write pytest tests/unit/nginx`` and read the difference.
"""

import os
from pathlib import Path

import pytest

from fairway.apps.spec import AppSpec, Endpoint
from fairway.nginx.render import owner, render
from fairway.nginx.site import Options, Server, Tls, plan
from fairway.nginx.version import NginxVersion

GOLDEN = Path(__file__).parents[2] / "golden" / "nginx"
APPS = [
    AppSpec(name="go-api", file=Path("go-api.yaml")),
    AppSpec(
        name="shop",
        file=Path("shop.yaml"),
        backend=Endpoint(domain="shop.example.org", path="/api"),
        frontend=Endpoint(domain="*.shop.example.org"),
        grpc=Endpoint(domain="shop.example.org", path="/shop.v1.Cart", port=9000),
    ),
]
SERVERS = {"go-api": (Server("127.0.0.1", 8080),), "shop": (Server("127.0.0.1", 41001), Server("127.0.0.1", 41002))}
TLS = Tls(Path("/etc/fairway/tls.crt"), Path("/etc/fairway/tls.key"))


@pytest.mark.parametrize("tls", [None, TLS], ids=["plain", "tls"])
@pytest.mark.parametrize("version", ["1.18.0", "1.22.1", "1.25.1", "1.29.3"])
def test_tree(version: str, tls: Tls | None) -> None:
    options = Options(tls=tls, trusted=("10.0.0.0/8",))
    planned = plan(APPS, SERVERS)
    assert planned.refused == ()
    tree = render(planned.sites, options, NginxVersion.parse(version), Path("/srv/nginx/current"), Path("/srv/nginx"))
    text = "".join(f"##### {path}\n{content}" for path, content in tree.items())
    golden = GOLDEN / f"{version}-{'tls' if tls else 'plain'}.txt"
    if os.environ.get("FAIRWAY_GOLDEN") == "write":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_files_are_owned_by_the_app_they_are_named_after() -> None:
    assert owner("apps/shop.conf") == "shop"
    assert owner("locations/shop.example.org/shop.grpc") == "shop"
    assert owner("domains/shop.example.org.conf") is None
    assert owner("http.conf") is None
