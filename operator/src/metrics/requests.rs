//! A tower layer that counts the requests of the Kubernetes client by verb, kind and answer.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper::{Method, Request, Response};
use tower::{Layer, Service};

use super::Metrics;

/// Counts what passes into [`Metrics`].
#[derive(Clone, Debug)]
pub struct CountRequests(pub Metrics);

impl<S> Layer<S> for CountRequests {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counting {
            inner,
            metrics: self.0.clone(),
        }
    }
}

/// The service that [`CountRequests`] makes.
#[derive(Clone, Debug)]
pub struct Counting<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, Req, Res> Service<Request<Req>> for Counting<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let verb = verb(request.method(), request.uri().query().unwrap_or(""));
        let kind = kind(request.uri().path());
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            match &answer {
                Ok(response) => metrics.requested(verb, kind, response.status().as_str()),
                Err(_) => metrics.requested(verb, kind, "error"),
            }
            answer
        })
    }
}

/// Kubernetes' name for what a request does.
fn verb(method: &Method, query: &str) -> &'static str {
    match *method {
        Method::GET if query.split('&').any(|pair| pair == "watch=true") => "watch",
        Method::GET => "get",
        Method::POST if query.contains("dryRun=") => "dry-run",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// The plural of the kind that a path is about, `other` for kinds that the operator has no business with.
fn kind(path: &str) -> &'static str {
    const KNOWN: [&str; 9] = [
        "websocketclusters",
        "pods",
        "services",
        "poddisruptionbudgets",
        "secrets",
        "controllerrevisions",
        "nodes",
        "leases",
        "events",
    ];
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // /api/v1/… or /apis/GROUP/VERSION/…, then perhaps namespaces/NAME
    let skip = if parts.next() == Some("apis") { 2 } else { 1 };
    let mut rest = parts.skip(skip);
    let mut plural = rest.next();
    if plural == Some("namespaces") {
        rest.next();
        plural = rest.next().or(plural);
    }
    plural
        .and_then(|plural| KNOWN.into_iter().find(|known| *known == plural))
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_kind_with_and_without_namespace_name_and_subresource() {
        for (path, expected) in [
            ("/api/v1/pods", "pods"),
            ("/api/v1/namespaces/default/pods/chat-1", "pods"),
            (
                "/apis/wsfleet.dev/v1alpha1/namespaces/pods/websocketclusters/nodes/status",
                "websocketclusters",
            ),
            ("/apis/coordination.k8s.io/v1/namespaces/x/leases/y", "leases"),
            ("/apis/apps/v1/deployments", "other"),
            ("/version", "other"),
            ("", "other"),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }

    #[test]
    fn watches_and_dry_runs_are_told_from_reads_and_writes() {
        assert_eq!(verb(&Method::GET, "&watch=true&timeoutSeconds=290"), "watch");
        assert_eq!(verb(&Method::GET, "limit=500"), "get");
        assert_eq!(verb(&Method::POST, "&dryRun=All"), "dry-run");
        assert_eq!(verb(&Method::PATCH, ""), "patch");
    }
}
