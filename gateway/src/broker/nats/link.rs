//! One connection to a NATS server: subscriptions, messages, and questions with their answers.
//!
//! What is sent is collected and written by one task, everything that is there at once; what is read goes to whoever asked,
//! or into the [`Intake`]. The reader never waits for those who take messages, so that answers come also while rooms are
//! crowded. The connection is given up when it ends, when the server complains about more than a permission, or when
//! nobody holds the link any more; whoever waits for an answer then gets none.

mod greeting;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::intake::Intake;
use super::wire::{self, Message, Said};
use crate::broker::BrokerError;
pub(super) use greeting::{ConnectError, connect};

/// What the subscription to answers is called; those of channels have a dot.
const ANSWERS: &[u8] = b"answers";
/// Bytes that may wait to be written.
const WAITING: usize = 32 << 20;
/// Read at a time, at least.
const READ: usize = 32 << 10;

/// Where what the server says comes from.
type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Where what is said to it goes.
type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// Both, with TLS or without.
type Halves = (Reader, Writer);

/// A connection. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    _ends: DropGuard,
}

#[derive(Debug)]
struct Shared {
    out: Mutex<Out>,
    written: Notify,
    asked: Mutex<HashMap<u64, mpsc::UnboundedSender<Message>>>,
    next: AtomicU64,
    /// Subject of answers, without the question's number.
    inbox: String,
    largest: usize,
    intake: Arc<Intake>,
    gone: CancellationToken,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Out {
    bytes: BytesMut,
    /// Who waits until the server has taken what was written before.
    flushes: VecDeque<oneshot::Sender<()>>,
    closed: bool,
}

/// Answers to one question; none come any more when it is dropped.
pub(super) struct Answers {
    shared: Arc<Shared>,
    number: u64,
    messages: mpsc::UnboundedReceiver<Message>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.shared.asked.lock().remove(&self.number);
    }
}

impl Answers {
    /// The next answer, if it comes within `time`; it may have been acted upon when it does not. Cancel-safe.
    pub(super) async fn next(&mut self, time: Duration) -> Result<Message, BrokerError> {
        match tokio::time::timeout(time, self.messages.recv()).await {
            Ok(Some(message)) if message.status() == Some(503) => Err(BrokerError::Unavailable),
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(_) => Err(BrokerError::Unconfirmed),
        }
    }
}

impl Link {
    /// Serves a connection that was greeted; `rest` was read already.
    fn start(
        (reader, writer): Halves,
        rest: BytesMut,
        (inbox, largest): (String, usize),
        intake: Arc<Intake>,
        tasks: &TaskTracker,
    ) -> Self {
        let gone = CancellationToken::new();
        let shared = Arc::new(Shared {
            out: Mutex::default(),
            written: Notify::new(),
            asked: Mutex::default(),
            next: AtomicU64::new(0),
            inbox,
            largest,
            intake,
            gone: gone.clone(),
        });
        let serve = Arc::clone(&shared);
        tasks.spawn(async move {
            let reason = tokio::select! {
                () = serve.gone.cancelled() => "given up".to_owned(),
                reason = serve.read(reader, rest) => reason,
                error = serve.write(writer) => error.to_string(),
            };
            serve.end(reason);
        });
        Self {
            shared,
            _ends: gone.drop_guard(),
        }
    }

    /// What comes for subscriptions.
    pub(super) fn intake(&self) -> &Intake {
        &self.shared.intake
    }

    /// Subscribes; `name` is a channel's, or has no dot.
    pub(super) fn subscribe(&self, subject: &str, name: &[u8]) -> Result<(), BrokerError> {
        self.send(&[b"SUB ", subject.as_bytes(), b" ", name, b"\r\n"])
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, name: &[u8]) -> Result<(), BrokerError> {
        self.send(&[b"UNSUB ", name, b"\r\n"])
    }

    /// Publishes; whether the server took it, [`Link::flush`] tells.
    pub(super) fn publish(&self, subject: &str, payload: &[u8]) -> Result<(), BrokerError> {
        self.fits(payload.len())?;
        let head = format!("PUB {subject} {}\r\n", payload.len());
        self.send(&[head.as_bytes(), payload, b"\r\n"])
    }

    /// Asks; the answers come to the subject that is told with the question.
    pub(super) fn ask(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Result<Answers, BrokerError> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, messages) = mpsc::unbounded_channel();
        self.shared.asked.lock().insert(number, sender);
        let answers = Answers {
            shared: Arc::clone(&self.shared),
            number,
            messages,
        };
        let inbox = &self.shared.inbox;
        if headers.is_empty() {
            self.fits(payload.len())?;
            let head = format!("PUB {subject} {inbox}.{number} {}\r\n", payload.len());
            self.send(&[head.as_bytes(), payload, b"\r\n"])?;
        } else {
            let mut lines = String::from("NATS/1.0\r\n");
            for (name, value) in headers {
                lines.extend([*name, ": ", *value, "\r\n"]);
            }
            lines.push_str("\r\n");
            let total = lines.len() + payload.len();
            self.fits(total)?;
            let head = format!("HPUB {subject} {inbox}.{number} {} {total}\r\n", lines.len());
            self.send(&[head.as_bytes(), lines.as_bytes(), payload, b"\r\n"])?;
        }
        Ok(answers)
    }

    /// Ready when the server has taken everything that was sent before.
    pub(super) fn flush(&self) -> Result<oneshot::Receiver<()>, BrokerError> {
        let (tell, done) = oneshot::channel();
        {
            let mut out = self.shared.out.lock();
            if out.closed {
                return Err(BrokerError::Unavailable);
            }
            out.bytes.extend_from_slice(b"PING\r\n");
            out.flushes.push_back(tell);
        }
        self.shared.written.notify_one();
        Ok(done)
    }

    fn fits(&self, bytes: usize) -> Result<(), BrokerError> {
        if bytes <= self.shared.largest {
            return Ok(());
        }
        let most = self.shared.largest;
        let text = format!("NATS takes {most} bytes at most (its max_payload), this has {bytes}");
        Err(BrokerError::Refused(text.into()))
    }

    fn send(&self, parts: &[&[u8]]) -> Result<(), BrokerError> {
        {
            let mut out = self.shared.out.lock();
            if out.closed {
                return Err(BrokerError::Unavailable);
            }
            if out.bytes.len() > WAITING {
                return Err(BrokerError::Overloaded);
            }
            for part in parts {
                out.bytes.extend_from_slice(part);
            }
        }
        self.shared.written.notify_one();
        Ok(())
    }
}

impl Shared {
    /// Takes what comes until the connection is of no use; tells why.
    async fn read(&self, mut reader: Reader, mut buffer: BytesMut) -> String {
        loop {
            loop {
                match wire::next(&mut buffer) {
                    Ok(Some(said)) => {
                        if let Err(complaint) = self.take(said) {
                            return complaint;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
            self.intake.wake();
            buffer.reserve(READ);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return "closed by NATS or the network".into(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Acts upon one thing; `Err` when the connection is of no use any more.
    fn take(&self, said: Said) -> Result<(), String> {
        match said {
            Said::Message(message) if message.subscription == *ANSWERS => self.answer(message),
            Said::Message(message) => self.intake.put(&message),
            Said::Ping => {
                self.out.lock().bytes.extend_from_slice(b"PONG\r\n");
                self.written.notify_one();
            }
            Said::Pong => {
                // who does not wait any more need not be told
                let _ = self.out.lock().flushes.pop_front().map(|tell| tell.send(()));
            }
            // the connection stays, what was forbidden did not happen
            Said::Error(text) if text.starts_with("Permissions Violation") => {
                tracing::warn!(error = text, "NATS forbids something that the gateway needs");
            }
            Said::Error(text) => return Err(text),
            Said::Info(_) | Said::Nothing => {}
        }
        Ok(())
    }

    fn answer(&self, message: Message) {
        let number = message.subject.rsplit(|&byte| byte == b'.').next();
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        if let Some(asked) = number.and_then(|number: u64| self.asked.lock().get(&number).cloned()) {
            // who does not wait any more need not be told
            let _ = asked.send(message);
        }
    }

    async fn write(&self, mut writer: Writer) -> std::io::Error {
        loop {
            let bytes: Bytes = std::mem::take(&mut self.out.lock().bytes).freeze();
            if bytes.is_empty() {
                self.written.notified().await;
                continue;
            }
            if let Err(error) = writer.write_all(&bytes).await {
                return error;
            }
            // TLS keeps back what the socket has not taken
            if let Err(error) = writer.flush().await {
                return error;
            }
        }
    }

    /// Whoever waits gets no answer.
    fn end(&self, reason: String) {
        {
            let mut out = self.out.lock();
            out.closed = true;
            out.flushes.clear();
        }
        self.asked.lock().clear();
        self.intake.end(reason);
    }
}
