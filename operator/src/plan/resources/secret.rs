//! The generated Secret with the gateways' admin token.

use k8s_openapi::api::core::v1::Secret;
use wsfleet_crds::v1alpha1::{SecretKeyRef, WebSocketCluster};

use super::{cluster_name, owned_meta};

/// Key of the generated token.
pub const TOKEN_KEY: &str = "token";

/// Where the admin token is: what the specification names, or the generated Secret.
pub fn admin_token_ref(cluster: &WebSocketCluster) -> SecretKeyRef {
    cluster
        .spec
        .gateway
        .admin_token_secret_ref
        .clone()
        .unwrap_or_else(|| SecretKeyRef {
            name: format!("{}-admin-token", cluster_name(cluster)),
            key: TOKEN_KEY.to_owned(),
        })
}

/// The Secret to create, without data: randomness is not the planner's, `apply` puts a token at [`TOKEN_KEY`].
pub(crate) fn admin_token(cluster: &WebSocketCluster) -> Secret {
    Secret {
        metadata: owned_meta(cluster, admin_token_ref(cluster).name),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
