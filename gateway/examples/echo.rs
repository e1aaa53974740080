//! Sends back what it is sent: the gateway's listener, handshake, frames, compression and write path, and nothing above
//! them. The conformance suite (`make conformance`) runs against it.
//!
//! ```text
//! cargo run --release -p wsfleet-gateway --example echo -- --listen 127.0.0.1:9001
//! ```
//!
//! It takes the gateway's flags. Unless they say otherwise nobody needs a token, and the limits are off: messages have up
//! to 16 MiB. Every message to a client that negotiated compression is compressed, however small.

use std::error::Error;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wsfleet_gateway::clock::Tick;
use wsfleet_gateway::config::{Args, Limits, Settings};
use wsfleet_gateway::gateway::Gateway;
use wsfleet_gateway::listener;
use wsfleet_gateway::session::{self, Conn, Upgraded};
use wsfleet_gateway::websocket::{
    Decoder, Incoming, Opcode, Rules, pong_frame, write_deflated_frame, write_frame,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::load_with(Args::from_command_line(std::env::args_os())?, |name| {
        unless_told_otherwise(name)
    })?;
    let clients = listener::bind(settings.listen)?;
    let address = clients.local_addr()?;
    let capacity = settings.max_connections.get();
    let gateway = Gateway::new(settings, capacity)?;
    let sweeping = Arc::clone(&gateway);
    tokio::spawn(async move {
        session::sweep_forever(&sweeping).await;
    });
    writeln!(std::io::stdout(), "listening on {address}")?;
    listener::serve(clients, gateway, CancellationToken::new(), echo).await;
    Ok(())
}

/// What holds where no flag does, in the place of the environment.
fn unless_told_otherwise(name: &str) -> Option<String> {
    match name {
        "WSFLEET_AUTH" => Some("anonymous".to_owned()),
        "WSFLEET_LIMIT" => {
            let off: Vec<_> = Limits::KEYS.iter().map(|key| format!("{key}=0")).collect();
            Some(off.join(","))
        }
        _ => None,
    }
}

/// One connection: reads whole messages, and writes each back.
async fn echo(upgraded: Upgraded) {
    let gateway = Arc::clone(upgraded.permit.gateway());
    let conn = Arc::new(Conn::new(
        upgraded.id,
        "".into(),
        upgraded.format,
        upgraded.socket,
        Arc::clone(&gateway.env),
        Tick::NEVER,
        Tick::NEVER,
    ));
    conn.hold(upgraded.answer);
    conn.release();
    let place = gateway.connections.insert(Arc::clone(&conn));
    let mut echo = Echo {
        rules: Rules {
            max_message: gateway.settings.limits.max_message_bytes(),
            deflate: conn.format.deflate.is_some(),
        },
        decoder: Decoder::default(),
        conn: Arc::clone(&conn),
    };
    let mut kept = Vec::from(upgraded.read);
    while echo.serve(&mut kept).is_continue() {
        if !matches!(conn.read(&mut kept).await, Ok(1..)) {
            break;
        }
    }
    // after a violation only the end of the stream is awaited: a reset must not overtake the close frame
    while matches!(conn.read(&mut kept).await, Ok(1..)) {
        kept.clear();
    }
    gateway.connections.remove(place);
}

struct Echo {
    rules: Rules,
    decoder: Decoder,
    conn: Arc<Conn>,
}

impl Echo {
    /// Serves the whole messages in `kept` and leaves the rest there.
    fn serve(&mut self, kept: &mut Vec<u8>) -> ControlFlow<()> {
        let mut used = 0;
        loop {
            let found = match self.decoder.next(&mut kept[used..], self.rules) {
                Ok(found) => found,
                Err(violation) => {
                    self.conn.close(violation.close_reason());
                    self.conn.finish_writing();
                    return ControlFlow::Break(());
                }
            };
            used += found.used;
            let Some(message) = found.message else {
                kept.drain(..used);
                return ControlFlow::Continue(());
            };
            self.answer(&message)?;
        }
    }

    fn answer(&self, message: &Incoming<'_>) -> ControlFlow<()> {
        let now = self.conn.connected;
        let frame = match message {
            Incoming::Text(text) => self.frame(Opcode::Text, text.as_bytes()),
            Incoming::Binary(data) => self.frame(Opcode::Binary, data),
            Incoming::Ping(payload) => pong_frame(payload),
            Incoming::Pong(_) => return ControlFlow::Continue(()),
            Incoming::Close(close) => {
                self.conn.peer_closed(close.code);
                return ControlFlow::Break(());
            }
        };
        self.conn.send(&frame, 1, now);
        ControlFlow::Continue(())
    }

    fn frame(&self, opcode: Opcode, payload: &[u8]) -> bytes::Bytes {
        let mut out = Vec::with_capacity(payload.len() + 16);
        match self.conn.format.deflate {
            Some(deflate) => write_deflated_frame(&mut out, opcode, payload, deflate),
            None => write_frame(&mut out, opcode, |out| out.extend_from_slice(payload)),
        }
        out.into()
    }
}
