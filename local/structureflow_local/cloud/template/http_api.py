"""The HTTP API of a template: its routes to functions, who may call them, and which pages of browsers (CORS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.template.resources import Resources
from structureflow_local.cloud.template.specs import CorsSpec, FunctionSpec, RouteSpec, TokensSpec
from structureflow_local.cloud.template.values import integer, is_true, refuse_unknown

_API: Final = frozenset({"CorsConfiguration", "Description", "Name", "ProtocolType", "Tags"})
_STAGE: Final = frozenset(
    {"AccessLogSettings", "ApiId", "AutoDeploy", "DefaultRouteSettings", "Description", "StageName", "Tags"}
)
_INTEGRATION: Final = frozenset(
    {"ApiId", "Description", "IntegrationType", "IntegrationUri", "PayloadFormatVersion", "TimeoutInMillis"}
)
_ROUTE: Final = frozenset({"ApiId", "AuthorizationType", "AuthorizerId", "OperationName", "RouteKey", "Target"})
_AUTHORIZER: Final = frozenset({"ApiId", "AuthorizerType", "IdentitySource", "JwtConfiguration", "Name"})
_CORS: Final = frozenset({"AllowHeaders", "AllowMethods", "AllowOrigins", "ExposeHeaders", "MaxAge"})
_HEADER: Final = "$request.header.Authorization"


class HttpApiReader:
    """Reads the API of a template, if it has one."""

    def __init__(self, resources: Resources) -> None:
        self._stack = resources

    def read(self, functions: Mapping[str, FunctionSpec]) -> tuple[dict[str, FunctionSpec], CorsSpec | None]:
        """Return the functions with the routes that lead to them, and which pages may ask; None: no page may.

        Raises:
            TemplateError: something of it would have to be ignored, or no call would come through on AWS.
        """
        apis = self._stack.each("AWS::ApiGatewayV2::Api", self._api)
        if len(apis) > 1:
            raise TemplateError(f"Resources: expected one HTTP API, got {', '.join(apis)}")
        stages = self._stack.each("AWS::ApiGatewayV2::Stage", self._stage)
        if apis and len(stages) != 1:
            raise TemplateError(
                f"Resources.{next(iter(apis))}: expected one AWS::ApiGatewayV2::Stage, got {len(stages)}"
            )
        tokens = {
            self._stack.reference(name, None, name): spec
            for name, spec in self._stack.each("AWS::ApiGatewayV2::Authorizer", self._authorizer).items()
        }
        targets = {
            self._stack.reference(name, None, name): arn
            for name, arn in self._stack.each("AWS::ApiGatewayV2::Integration", self._integration).items()
        }
        allowed = set(self._stack.each("AWS::Lambda::Permission", self._permission).values())
        by_arn = {spec.arn: logical_id for logical_id, spec in functions.items()}
        found = dict(functions)
        routes = self._stack.each(
            "AWS::ApiGatewayV2::Route", lambda name, resource: self._route(name, resource, tokens, targets)
        )
        for name, (route, arn) in routes.items():
            if arn not in by_arn:
                raise TemplateError(f"Resources.{name}: no function has the ARN {arn}")
            spec = found[by_arn[arn]]
            if not allowed & {spec.name, spec.arn}:
                raise TemplateError(f"Resources.{name}: no AWS::Lambda::Permission lets API Gateway call {by_arn[arn]}")
            found[by_arn[arn]] = replace(spec, routes=(*spec.routes, route))
        return found, next(iter(apis.values()), None)

    def _properties(self, logical_id: str, resource: Mapping[str, Any], known: frozenset[str]) -> tuple[Any, str]:
        place = f"Resources.{logical_id}.Properties"
        properties = self._stack.properties(logical_id, resource, known)
        if "ApiId" in known:
            api = self._stack.value(properties, "ApiId", place)
            apis = self._stack.each("AWS::ApiGatewayV2::Api", lambda name, _: self._stack.reference(name, None, name))
            if api not in apis.values():
                raise TemplateError(f"{place}.ApiId: expected an API of this template, got {api!r:.80}")
        return properties, place

    def _expect(self, properties: Any, place: str, name: str, wanted: Any) -> None:
        found = self._stack.value(properties, name, place)
        if found != wanted:
            raise TemplateError(f"{place}.{name}: expected {wanted}, got {found!r:.80}")

    def _api(self, logical_id: str, resource: Mapping[str, Any]) -> CorsSpec | None:
        properties, place = self._properties(logical_id, resource, _API)
        self._expect(properties, place, "ProtocolType", "HTTP")
        cors = self._stack.value(properties, "CorsConfiguration", place)
        if cors is None:
            return None
        where = f"{place}.CorsConfiguration"
        refuse_unknown(cors, _CORS, where)
        return CorsSpec(
            origins=tuple(cors.get("AllowOrigins") or ()),
            methods=tuple(cors.get("AllowMethods") or ()),
            headers=tuple(cors.get("AllowHeaders") or ()),
            exposed=tuple(cors.get("ExposeHeaders") or ()),
            max_age_s=integer(cors.get("MaxAge", 0), f"{where}.MaxAge", 0, 86_400),
        )

    def _stage(self, logical_id: str, resource: Mapping[str, Any]) -> None:
        properties, place = self._properties(logical_id, resource, _STAGE)
        self._expect(properties, place, "StageName", "$default")
        if not is_true(self._stack.value(properties, "AutoDeploy", place, False)):
            raise TemplateError(f"{place}.AutoDeploy: expected true, else no route is ever deployed")

    def _authorizer(self, logical_id: str, resource: Mapping[str, Any]) -> TokensSpec:
        properties, place = self._properties(logical_id, resource, _AUTHORIZER)
        self._expect(properties, place, "AuthorizerType", "JWT")
        self._expect(properties, place, "IdentitySource", [_HEADER])
        settings = self._stack.value(properties, "JwtConfiguration", place, {})
        refuse_unknown(settings, frozenset({"Audience", "Issuer"}), f"{place}.JwtConfiguration")
        issuer, audience = settings.get("Issuer"), settings.get("Audience")
        if not isinstance(issuer, str) or not issuer.startswith("https://"):
            raise TemplateError(f"{place}.JwtConfiguration.Issuer: expected a URL with https, got {issuer!r:.80}")
        if not isinstance(audience, list) or not audience or not all(audience):
            raise TemplateError(f"{place}.JwtConfiguration.Audience: expected one or more, got {audience!r:.80}")
        return TokensSpec(issuer=issuer, audience=tuple(str(one) for one in audience))

    def _integration(self, logical_id: str, resource: Mapping[str, Any]) -> str:
        properties, place = self._properties(logical_id, resource, _INTEGRATION)
        self._expect(properties, place, "IntegrationType", "AWS_PROXY")
        self._expect(properties, place, "PayloadFormatVersion", "2.0")
        return str(self._stack.value(properties, "IntegrationUri", place))

    def _permission(self, logical_id: str, resource: Mapping[str, Any]) -> str:
        place = f"Resources.{logical_id}.Properties"
        properties = resource.get("Properties") or {}
        if self._stack.value(properties, "Principal", place) != "apigateway.amazonaws.com":
            return ""
        return str(self._stack.value(properties, "FunctionName", place))

    def _route(
        self, logical_id: str, resource: Mapping[str, Any], tokens: Mapping[str, TokensSpec], targets: Mapping[str, str]
    ) -> tuple[RouteSpec, str]:
        properties, place = self._properties(logical_id, resource, _ROUTE)
        method, _, path = str(self._stack.value(properties, "RouteKey", place)).partition(" ")
        if (method == "$default") != (path == "") or not (path == "" or path.startswith("/")):
            raise TemplateError(f"{place}.RouteKey: expected $default, or a method and a path, got {method!r} {path!r}")
        target = str(self._stack.value(properties, "Target", place)).removeprefix("integrations/")
        if target not in targets:
            raise TemplateError(f"{place}.Target: expected integrations/ and one of this template, got {target!r:.80}")
        kind = self._stack.value(properties, "AuthorizationType", place, "NONE")
        authorizer = self._stack.value(properties, "AuthorizerId", place)
        if kind not in {"NONE", "AWS_IAM", "JWT"} or (kind == "JWT") != (authorizer in tokens):
            raise TemplateError(
                f"{place}.AuthorizationType: expected NONE, AWS_IAM, or JWT with an AuthorizerId of this template, "
                f"got {kind!r:.80} with {authorizer!r:.80}"
            )
        route = RouteSpec(
            place=place,
            method="ANY" if method == "$default" else method.upper(),
            path=path or "$default",
            signed=kind == "AWS_IAM",
            tokens=tokens.get(authorizer) if kind == "JWT" else None,
        )
        return route, targets[target]
