//! `spec.tls`: encrypted connections of clients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The certificate that gateways show to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Name of a Secret of the type `kubernetes.io/tls` in the same namespace: the certificate with its chain in
    /// `tls.crt`, its key in `tls.key`. When its content changes, gateways show the new certificate to new sockets
    /// within about a minute, without a restart; another name rolls the fleet. The fleet is not made, and not rolled,
    /// while the Secret or one of its keys is missing.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}
