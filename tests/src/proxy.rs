//! A TCP proxy that can turn into a black hole: connections stay open and nothing passes, as when a firewall drops
//! packets or a node disappears.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// Connections numbered below this are black holes.
    swallowed: Arc<watch::Sender<u64>>,
    accepted: Arc<watch::Sender<u64>>,
    _end: DropGuard,
}

impl Proxy {
    /// Listens on a free port and passes connections on to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let swallowed = Arc::new(watch::Sender::new(0));
        let accepted = Arc::new(watch::Sender::new(0));
        let end = CancellationToken::new();
        let accept = accept(
            listener,
            target,
            Arc::clone(&swallowed),
            Arc::clone(&accepted),
            end.clone(),
        );
        tokio::spawn(end.clone().run_until_cancelled_owned(accept));
        Ok(Self {
            address,
            swallowed,
            accepted,
            _end: end.drop_guard(),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        *self.accepted.borrow()
    }

    /// Turns every connection that exists into a black hole; later ones pass.
    pub fn swallow(&self) {
        self.swallowed.send_replace(self.accepted());
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    swallowed: Arc<watch::Sender<u64>>,
    accepted: Arc<watch::Sender<u64>>,
    end: CancellationToken,
) {
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(target).await else {
            continue;
        };
        let number = *accepted.borrow();
        accepted.send_replace(number + 1);
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        for (from, to) in [(near_in, far_out), (far_in, near_out)] {
            let pass = pass(from, to, number, swallowed.subscribe());
            tokio::spawn(end.clone().run_until_cancelled_owned(pass));
        }
    }
}

/// Passes bytes one way until either side ends, or for ever nothing once swallowed.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    mut swallowed: watch::Receiver<u64>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let gone = async { swallowed.wait_for(|&below| number < below).await.is_ok() };
        tokio::select! {
            biased;
            true = gone => std::future::pending::<()>().await,
            read = from.read(&mut buffer) => match read {
                Ok(n) if n > 0 => {
                    if to.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
