"""Who carries a token: JSON Web Tokens (RFC 7519) of an issuer, checked as API Gateway's JWT authorizer does.

Signatures are checked by joserfc, with keys that whoever starts the cloud hands over: it asks no issuer for them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from structureflow.errors import StructureFlowError
from structureflow_local.cloud.template import TokensSpec

#: API Gateway takes signatures by RSA alone.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512")


class TokenError(StructureFlowError, PermissionError):
    """A request carries no token that counts."""


class Tokens:
    """Checks tokens.

    Args:
        keys: a JSON Web Key Set (RFC 7517) with the issuer's public keys.
    """

    def __init__(self, keys: Mapping[str, Any]) -> None:
        # a tenth of a second that few need
        from joserfc.jwk import KeySet

        self._keys = KeySet.import_key_set(dict(keys))  # type: ignore[arg-type]

    def check(self, header: str, wanted: TokensSpec) -> Mapping[str, Any]:
        """Return the claims of the token in an ``Authorization`` header, with or without ``Bearer`` before it.

        Raises:
            TokenError: there is none, its signature is none of the issuer's, it is for others, or not for now.
        """
        from joserfc import jwt
        from joserfc.errors import JoseError

        text = header.removeprefix("Bearer ").strip()
        try:
            claims = jwt.decode(text, self._keys, algorithms=_ALGORITHMS).claims
        except (JoseError, ValueError) as error:
            raise TokenError(f"expected a token of {wanted.issuer}, got {error}") from error
        if claims.get("iss") != wanted.issuer:
            raise TokenError(f"iss: expected {wanted.issuer}, got {claims.get('iss')!r:.80}")
        # only a token without audiences is asked for its client
        meant = claims.get("aud", claims.get("client_id"))
        if not set(meant if isinstance(meant, list) else [meant]) & set(wanted.audience):
            raise TokenError(f"aud: expected one of {', '.join(wanted.audience)}, got {meant!r:.80}")
        now = time.time()
        if not _seconds(claims, "exp", 0.0) > now:
            raise TokenError("exp: the token is of the past")
        if max(_seconds(claims, "nbf", now), _seconds(claims, "iat", now)) > now:
            raise TokenError("nbf, iat: the token is of the future")
        return claims


def _seconds(claims: Mapping[str, Any], name: str, default: float) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TokenError(f"{name}: expected seconds, got {value!r:.80}")
    return float(value)
