//! `spec.auth`: who may open a socket.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::SecretKeyRef;

/// Who may open a socket; exactly one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.jwt), has(self.insecureToken), has(self.anonymous)].filter(x, x).size() == 1", "set exactly one of auth.jwt, auth.insecureToken and auth.anonymous"))]
pub struct AuthSpec {
    /// Clients show a JSON Web Token, signed with a shared secret or with a key of the issuer's. Its `sub` is the user.
    /// For production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtAuth>,
    /// `?token=abc` is user `user_abc`, unchecked. For development only: anybody can be anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_token: Option<InsecureTokenAuth>,
    /// No token is asked for; each socket is a user of its own. For public, read-mostly feeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<AnonymousAuth>,
}

/// JSON Web Tokens; secretRef, jwksUrl or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.secretRef) || has(self.jwksUrl)", "set auth.jwt.secretRef, auth.jwt.jwksUrl or both"))]
pub struct JwtAuth {
    /// Secret key with the secret that tokens are signed with (HS256). At least 32 bytes, as RFC 7518 §3.2 asks of
    /// HS256; 48 bytes verify HS384, too, and 64 HS512. The fleet is not made, and not rolled, while the Secret or the
    /// key is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// Where the issuer publishes its keys as a JWK set, for tokens signed with RS256, RS384, RS512, ES256, ES384 or
    /// EdDSA. Each gateway fetches it at its start, every ten minutes, and, at most once in ten seconds, when a token
    /// names a key that is not known. While it cannot be fetched the known keys stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^https?://[^/@?# ]+([/?][^ ]*)?$')", "write the URL of a JWK set without user and password, for example https://login.example.com/.well-known/jwks.json"))]
    pub jwks_url: Option<String>,
    /// What the token's `aud` must hold. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub audience: Option<String>,
    /// What the token's `iss` must be. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub issuer: Option<String>,
    /// Whether a token must say in its claim `rooms` which rooms it opens. Optional: a token without the claim opens
    /// every room. Required: it opens none. Default: Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms_claim: Option<RoomsClaim>,
    /// Seconds by which a socket outlives its token, for the client to send another; then it is closed with 4202.
    /// Gateway default 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub token_grace_seconds: Option<u32>,
}

/// Whether tokens must say which rooms they open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RoomsClaim {
    /// A token without the claim opens every room.
    Optional,
    /// A token without the claim opens no room.
    Required,
}

/// Unchecked tokens; no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InsecureTokenAuth {}

/// No tokens; no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnonymousAuth {}
