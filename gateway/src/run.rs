//! A gateway's life: listen, serve, drain when asked to end, end with no socket left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{Fetcher, Jwks};
use crate::config::{AuthSettings, Settings};
use crate::fleet;
use crate::gateway::{Gateway, GatewayError};
use crate::shutdown::ShutdownSignal;
use crate::{admin, api, descriptors, drain, listener, session};

/// Window of a drain that was asked for twice.
const HURRY: Duration = Duration::from_secs(5);
/// How long sockets may outlive the drain's window: their closes may go unanswered, then they are cut.
const GRACE: Duration = Duration::from_secs(4);
/// Time between looks for sockets that are left.
const POLL: Duration = Duration::from_millis(20);

/// Why a gateway could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port cannot be listened on: taken, or not allowed. Choose another one.
    #[error("--{flag}: cannot listen on {address}: {error}")]
    Listen {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The gateway could not be put together.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A system call failed that does not fail.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The three ports, bound: one for each trust domain.
#[derive(Debug)]
pub struct Listeners {
    /// Clients.
    pub clients: TcpListener,
    /// Back ends.
    pub api: TcpListener,
    /// Operators, probes, Prometheus.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds what the settings name; to be called inside a tokio runtime.
    pub fn bind(settings: &Settings) -> Result<Self, RunError> {
        let bind = |flag, address| {
            listener::bind(address).map_err(|error| RunError::Listen { flag, address, error })
        };
        Ok(Self {
            clients: bind("listen", settings.listen)?,
            api: bind("api-listen", settings.api_listen)?,
            admin: bind("admin-listen", settings.admin_listen)?,
        })
    }
}

/// Runs a gateway until it was asked to end and has no socket left.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    mut shutdown: ShutdownSignal,
) -> Result<(), RunError> {
    let wanted = settings.max_connections.get();
    let capacity = descriptors::capacity(wanted, descriptors::raise_limit());
    if capacity < wanted {
        tracing::warn!(
            wanted,
            capacity,
            "--max-connections is lowered to what the descriptor limit allows"
        );
    }
    let gateway = Gateway::new(settings, capacity)?;
    let Listeners { clients, api, admin } = listeners;
    tracing::info!(
        clients = %clients.local_addr()?, api = %api.local_addr()?, admin = %admin.local_addr()?,
        server_id = gateway.settings.server_id.as_str(), capacity,
        tls = gateway.tls.is_some(), "serving"
    );
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(listener::serve(
        clients,
        Arc::clone(&gateway),
        stop.clone(),
        session::serve,
    ));
    tasks.spawn(serve_http(api, api::router(Arc::clone(&gateway))));
    tasks.spawn(serve_http(admin, admin::router(Arc::clone(&gateway))));
    let sweeping = Arc::clone(&gateway);
    tasks.spawn(async move {
        session::sweep_forever(&sweeping).await;
    });
    if let Some((jwks, fetcher)) = key_set(&gateway) {
        tasks.spawn(async move { jwks.run(|| fetcher.fetch()).await });
    }
    let renewing = Arc::clone(&gateway);
    tasks.spawn(async move {
        if let Some(tls) = &renewing.tls {
            tls.run().await;
        }
    });
    let ordered = Arc::clone(&gateway);
    tasks.spawn(async move { fleet::run(&ordered).await });
    let draining = Arc::clone(&gateway);
    tasks.spawn(async move { drain::run(&draining).await });

    let announcing = Arc::clone(&gateway);
    tasks.spawn(async move { announcing.rooms.announce_gone(&*announcing.broker).await });

    shutdown.next().await;
    end(&gateway, &mut shutdown).await;
    stop.cancel();
    gateway.broker.close().await;
    tasks.shutdown().await;
    tracing::info!("ended");
    Ok(())
}

/// The issuer's keys and who fetches them, when tokens are verified by them.
fn key_set(gateway: &Gateway) -> Option<(Arc<Jwks>, Fetcher)> {
    let AuthSettings::Jwt(jwt) = &gateway.settings.auth else {
        return None;
    };
    let fetcher = Fetcher::new(jwt.jwks_url.as_ref()?.url().clone());
    Some((Arc::clone(gateway.authenticator.key_set()?), fetcher))
}

async fn serve_http(listener: TcpListener, router: Router) {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    // `axum::serve` retries errors of `accept` itself and never returns
    let _ = axum::serve(listener, service).await;
}

/// Drains until no socket is left. Each further wish to end shortens what is left to [`HURRY`].
async fn end(gateway: &Gateway, shutdown: &mut ShutdownSignal) {
    let mut window = gateway.settings.drain_window.duration();
    loop {
        let now = gateway.env.clock.now();
        gateway.drain.terminate(window, now);
        tracing::info!(
            connections = gateway.connections.len(),
            ?window,
            "ending: draining"
        );
        tokio::select! {
            () = until_empty(gateway) => return,
            () = tokio::time::sleep(window + GRACE) => {
                tracing::warn!(connections = gateway.connections.len(), "sockets are left after the drain's window");
                return;
            }
            () = shutdown.next() => window = window.min(HURRY),
        }
    }
}

async fn until_empty(gateway: &Gateway) {
    while !gateway.admission.is_empty() {
        tokio::time::sleep(POLL).await;
    }
}
