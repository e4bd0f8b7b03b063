"""Who may ask the API: callers with a token of the stack's issuer, and pages of the origins that it allows."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from structureflow.api.client import ApiClient
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.signature import sign
from structureflow_local.cloud.template import TokensSpec, load_template
from structureflow_local.cloud.tokens import TokenError, Tokens
from tests.contract.api_routes import every_route

REPO = Path(__file__).resolve().parents[2]
FIXTURE = REPO / "tests" / "fixtures" / "local" / "template.yaml"
ISSUER, AUDIENCE, PAGE = "https://tokens.example/pool", "screens", "https://screens.example"
KEY = RSAKey.generate_key(2048, {"kid": "one"})
STRANGER = RSAKey.generate_key(2048, {"kid": "one"})
KEYS = KeySet([KEY]).as_dict(private=False)
SETTINGS = {"ApiTokenIssuer": ISSUER, "ApiTokenAudience": f"other,{AUDIENCE}", "ApiAllowedOrigins": PAGE}


def token(key: Any = KEY, algorithm: str = "RS256", **changes: Any) -> str:
    """A token that counts, but for what is changed; None leaves a claim out."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, "iat": now - 5, "sub": "somebody"} | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode({"alg": algorithm, "kid": "one"}, kept, key, algorithms=[algorithm])


def signed_by_secret(secret: bytes, algorithm: str = "HS256") -> str:
    """A token that would count if whoever sends it chose how it is signed; no library makes one."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "one"}).encode()).rstrip(b"=")
    signing = head + b"." + token().split(".")[1].encode()
    signature = hmac.digest(secret, signing, "sha256") if secret else b""
    return (signing + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def refused() -> dict[str, str]:
    """Tokens that do not count, by why."""
    now = int(time.time())
    return {
        "of another key": token(STRANGER),
        "of another issuer": token(iss="https://elsewhere.example"),
        "of no issuer": token(iss=None),
        "for somebody else": token(aud="payments"),
        "for a client that is not named": token(aud=None, client_id="payments"),
        "for nobody": token(aud=None),
        "for others, of a client that is named": token(aud="payments", client_id=AUDIENCE),
        "of the past": token(exp=now - 1),
        "for ever": token(exp=None),
        "of the future": token(nbf=now + 60),
        "made in the future": token(iat=now + 60),
        "with times that are none": token(exp="tomorrow"),
        "signed by its public key as a secret": signed_by_secret(KEY.as_pem(private=False)),
        "signed by nobody": signed_by_secret(b"", algorithm="none"),
        "cut off": token()[:-8],
        "changed": ".".join([*token().split(".")[:2], token(sub="admin").split(".")[2]]),
        "nonsense": "x.y.z",
        "empty": "",
    }


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(REPO / "template.yaml", parameters=SETTINGS, token_keys=KEYS) as running:
        yield running


def ask(url: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, HTTPMessage, bytes]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


# --- tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", refused())
def test_tokens_that_do_not_count(why: str) -> None:
    wanted = TokensSpec(ISSUER, (AUDIENCE,))
    with pytest.raises(TokenError):
        Tokens(KEYS).check(f"Bearer {refused()[why]}", wanted)


@pytest.mark.parametrize("changes", [{}, {"aud": ["x", AUDIENCE]}, {"aud": None, "client_id": AUDIENCE}, {"iat": None}])
@pytest.mark.parametrize("before", ["Bearer ", ""])
def test_tokens_that_count(before: str, changes: dict[str, Any]) -> None:
    claims = Tokens(KEYS).check(before + token(**changes), TokensSpec(ISSUER, ("x2", AUDIENCE)))
    assert claims["sub"] == "somebody"


@pytest.mark.parametrize(("method", "path"), every_route())
def test_every_route_asks_for_a_token_where_there_is_an_issuer(cloud: LocalCloud, method: str, path: str) -> None:
    calls = len(cloud.invocations)
    signed = sign(cloud.key, method=method, url=cloud.api_url + path, service="execute-api", region=cloud.region)
    bad = refused()
    for headers in (
        {},
        signed,
        {"Authorization": f"Bearer {bad['of another key']}"},
        {"Authorization": f"Bearer {bad['of the past']}"},
        {"Authorization": f"Bearer {bad['for somebody else']}"},
        {"X-Token": token()},
    ):
        status, _, body = ask(cloud.api_url, method, path, headers)
        assert (status, json.loads(body)) == (401, {"message": "Unauthorized"}), headers
    assert len(cloud.invocations) == calls, "a function was called for somebody without a token"
    status, _, body = ask(cloud.api_url, method, path, {"Authorization": f"Bearer {token()}"})
    assert status in {200, 400, 404}, body


def test_the_typed_client_carries_a_token(cloud: LocalCloud) -> None:
    assert list(ApiClient(cloud.api_url, token=token()).jobs()) == []


# --- pages of other origins --------------------------------------------------------------------------


def preflight(url: str, path: str, origin: str, method: str = "PUT") -> tuple[int, HTTPMessage, bytes]:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Sec-Fetch-Site": "cross-site"}
    return ask(url, "OPTIONS", path, asked)


def test_a_page_is_told_what_it_may_ask_before_it_carries_anything(cloud: LocalCloud) -> None:
    calls = len(cloud.invocations)
    status, headers, body = preflight(cloud.api_url, "/jobs/mine", PAGE)
    assert (status, body) == (204, b"")
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert {"PUT", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(","))
    assert {"authorization", "content-type"} <= set(headers["Access-Control-Allow-Headers"].split(","))
    assert len(cloud.invocations) == calls
    good = {"Origin": PAGE, "Authorization": f"Bearer {token()}", "Sec-Fetch-Site": "cross-site"}
    status, headers, _ = ask(cloud.api_url, "GET", "/jobs", good)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    status, headers, _ = ask(cloud.api_url, "GET", "/jobs", {"Origin": PAGE})
    assert (status, headers["Access-Control-Allow-Origin"]) == (401, PAGE), "a page must be able to read why"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{PAGE}.evil.example", PAGE.upper(), f"{PAGE}:444"]
)
def test_other_pages_are_told_nothing(cloud: LocalCloud, origin: str) -> None:
    for status, headers, _ in (
        preflight(cloud.api_url, "/jobs/mine", origin),
        ask(cloud.api_url, "GET", "/jobs", {"Origin": origin, "Authorization": f"Bearer {token()}"}),
    ):
        assert status == 403
        assert not [name for name in headers if name.lower().startswith("access-control")]


# --- templates ---------------------------------------------------------------------------------------


def changed(tmp_path: Path, logical_id: str, **changes: Any) -> Path:
    """The fixture's template with one resource changed, beside its files; None leaves a property out."""
    from samtranslator.yaml_helper import yaml_parse

    document = json.loads(json.dumps(yaml_parse(FIXTURE.read_text())))
    properties = document["Resources"][logical_id]["Properties"]
    for name, value in changes.items():
        properties[name] = value
        if value is None:
            del properties[name]
    for name in ("functions", "statemachines", "layers"):
        if (FIXTURE.parent / name).exists():
            (tmp_path / name).symlink_to(FIXTURE.parent / name)
    path = tmp_path / "template.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("logical_id", "changes", "place"),
    [
        ("Things", {"ProtocolType": "WEBSOCKET"}, "ProtocolType"),
        ("Things", {"CorsConfiguration": {"AllowCredentials": True}}, "AllowCredentials"),
        ("ThingsStage", {"StageName": "prod"}, "StageName"),
        ("ThingsStage", {"AutoDeploy": False}, "AutoDeploy"),
        ("ThingsStage", {"ApiId": "another"}, "ApiId"),
        ("ThingsIntegration", {"PayloadFormatVersion": "1.0"}, "PayloadFormatVersion"),
        (
            "ThingsIntegration",
            {"IntegrationUri": "arn:aws:lambda:us-east-1:1:function:none"},
            "no function has the ARN",
        ),
        ("ThingRoute", {"Target": "integrations/none"}, "Target"),
        ("ThingRoute", {"RouteKey": "GET"}, "RouteKey"),
        ("ThingRoute", {"AuthorizationType": "CUSTOM"}, "AuthorizationType"),
        ("ThingRoute", {"AuthorizationType": "JWT"}, "AuthorizationType"),
        ("ThingRoute", {"AuthorizationScopes": ["a"]}, "AuthorizationScopes"),
        ("ApiPermission", {"Principal": "s3.amazonaws.com"}, "no AWS::Lambda::Permission lets API Gateway call"),
    ],
)
def test_an_api_that_would_not_answer_on_aws_is_refused(
    tmp_path: Path, logical_id: str, changes: dict[str, Any], place: str
) -> None:
    load_template(changed(tmp_path, "Things", Name="things"))
    (tmp_path / "again").mkdir()
    with pytest.raises(TemplateError, match=place):
        load_template(changed(tmp_path / "again", logical_id, **changes))


def test_routes_sign_by_default_and_take_tokens_by_parameter() -> None:
    for parameters, wanted in (({}, (True, None)), (SETTINGS, (False, TokensSpec(ISSUER, ("other", AUDIENCE))))):
        functions = load_template(REPO / "template.yaml", parameters).functions
        routes = [route for spec in functions.values() for route in spec.routes]
        assert len(routes) == 9
        assert {(route.signed, route.tokens) for route in routes} == {wanted}
    with pytest.raises(TemplateError, match="Audience"):
        load_template(REPO / "template.yaml", {"ApiTokenIssuer": ISSUER})
