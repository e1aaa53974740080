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
    /// Clients show a JSON Web Token signed with a shared secret (HS256). Its `sub` is the user. For production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtAuth>,
    /// `?token=abc` is user `user_abc`, unchecked. For development only: anybody can be anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_token: Option<InsecureTokenAuth>,
    /// No token is asked for; each socket is a user of its own. For public, read-mostly feeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<AnonymousAuth>,
}

/// JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtAuth {
    /// Secret key with the secret that tokens are signed with. At least 32 bytes, as RFC 7518 §3.2 asks of HS256. The
    /// fleet is not made, and not rolled, while the Secret or the key is missing.
    pub secret_ref: SecretKeyRef,
    /// What the token's `aud` must hold. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub audience: Option<String>,
    /// What the token's `iss` must be. Default: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub issuer: Option<String>,
}

/// Unchecked tokens; no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InsecureTokenAuth {}

/// No tokens; no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnonymousAuth {}
