//! Orders to gateways: cordon, drain, renewal of a lease, resume.
//!
//! A failure is recorded and is never fatal: the planner sees an unreachable gateway, and takes it from there.

use jiff::Timestamp;
use kube::ResourceExt;
use tracing::{info, warn};
use wsfleet_crds::admin::{DrainMode, DrainRequest, GatewayState};
use wsfleet_crds::labels::{self, DrainReason};

use super::Pass;
use crate::gateway::{Endpoint, GatewayError};
use crate::leader::Term;
use crate::observe::model::Lease;
use crate::observe::pods::admin_port;
use crate::plan::budget::{lease, unanswered};
use crate::plan::resources::secret::admin_token_ref;

/// What a request without `leaseSeconds` grants.
const DEFAULT_LEASE_SECONDS: u32 = 30;

impl Pass<'_> {
    pub(super) async fn drain(
        &self,
        name: &str,
        ip: String,
        port: u16,
        mut request: DrainRequest,
        term: Term,
    ) {
        request.epoch = term.epoch;
        let observer = &self.applier.observer;
        let token = match observer.token(self.id, self.cluster).await {
            Ok(Some(token)) => token,
            Ok(None) => return warn!(pod = name, "no admin token: the gateway cannot be told to drain"),
            Err(error) => {
                return warn!(pod = name, %error, "no admin token: the gateway cannot be told to drain");
            }
        };
        let pod = observer.pod(self.id, name);
        // the port that the pod was started with: the resource's may have changed since
        let port = pod.as_deref().and_then(admin_port).unwrap_or(port);
        // remembered before it is sent: of a call without an answer it is not known whether it was heard
        let before = self.remember_lease(name, &request);
        let answer = self
            .applier
            .gateways
            .drain(&Endpoint { ip, port }, token.expose(), &request)
            .await;
        if let Some(pod) = pod
            && let Some(uid) = pod.uid()
        {
            let change = observer.samples.record(&uid, Timestamp::now(), &answer);
            if let Some(reason) = pod
                .annotations()
                .get(labels::DRAIN_REASON)
                .and_then(|text| DrainReason::parse(text))
            {
                self.applier
                    .metrics
                    .disconnected(reason, change.forced, change.natural);
                observer.memory.closed(&self.id.uid, reason, change.forced);
            }
        }
        self.answered(name, &request, &answer, before);
    }

    fn answered(
        &self,
        name: &str,
        request: &DrainRequest,
        answer: &Result<GatewayState, GatewayError>,
        before: Option<Lease>,
    ) {
        let cluster = self.id.name.as_str();
        match answer {
            Ok(state) => {
                let (mode, rate) = (request.mode, request.rate_per_second);
                info!(
                    cluster,
                    pod = name,
                    ?mode,
                    rate,
                    connections = state.connections,
                    "gateway told"
                );
            }
            Err(error) => {
                warn!(cluster, pod = name, %error, "gateway not told");
                if matches!(error, GatewayError::Unauthorized) {
                    let secret = admin_token_ref(self.cluster).name;
                    self.applier.observer.secrets.forget(&self.id.namespace, &secret);
                }
                let asked = self.put_lease(name, before);
                if error.is_unreachable() {
                    self.put_lease(name, unanswered(before, asked));
                }
            }
        }
    }

    /// Keeps what the request grants, and returns what was granted before.
    fn remember_lease(&self, name: &str, request: &DrainRequest) -> Option<Lease> {
        let seconds = request.lease_seconds.unwrap_or(DEFAULT_LEASE_SECONDS);
        let rate = request.rate_per_second.unwrap_or(0.0);
        let granted = (request.mode == DrainMode::Drain).then(|| lease(rate, seconds, Timestamp::now()));
        self.put_lease(name, granted)
    }

    fn put_lease(&self, name: &str, lease: Option<Lease>) -> Option<Lease> {
        let now = Timestamp::now();
        self.applier.observer.memory.update(&self.id.uid, |remembered| {
            remembered.leases.retain(|_, lease| lease.until > now);
            match lease {
                Some(lease) => remembered.leases.insert(name.to_owned(), lease),
                None => remembered.leases.remove(name),
            }
        })
    }
}
