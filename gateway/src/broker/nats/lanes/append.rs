//! One frame's way into its stream.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::core::Core;
use super::super::frame::Frame;
use super::super::jetstream::{Append, Appended, JetStream, Stored};
use super::super::link::Link;
use super::{Job, tell};
use crate::broker::{Accepted, BrokerError, Position};
use crate::clock::Clock;
use crate::config::Retention;

/// Messages in one frame.
const MESSAGES: usize = 128;
/// Bytes of messages in one frame; a larger one is alone in its frame.
const BYTES: usize = 128 << 10;

/// Takes what goes into the next frame: one message with an id, or some without.
pub(super) fn next_frame(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let Some(first) = waiting.pop_front() else {
        return Vec::new();
    };
    let alone = first.id.is_some();
    let mut size = first.event.len();
    let mut jobs = vec![first];
    while !alone && jobs.len() < MESSAGES {
        let fits = |job: &mut Job| job.id.is_none() && size + job.event.len() <= BYTES;
        let Some(next) = waiting.pop_front_if(fits) else {
            break;
        };
        size += next.event.len();
        jobs.push(next);
    }
    jobs
}

/// Where a frame came to be.
enum Place {
    /// Behind the last one.
    Here(Stored),
    /// It had been accepted before; the last frame, as far as it is known.
    Before(Accepted, Option<Stored>),
}

/// Appends messages, and tells what came of it; gives the last frame of the stream, as far as it is known.
pub(super) async fn append(
    core: &Core,
    channel: &[u8],
    retention: Retention,
    jobs: Vec<Job>,
    head: Option<Stored>,
) -> Option<Stored> {
    let link = core.link();
    let id = jobs.first().and_then(|job| job.id.clone());
    let events = jobs.iter().map(|job| job.event.clone()).collect();
    let placed = match &link {
        Ok(link) => place(core, link, channel, retention, (events, id.as_deref()), head).await,
        Err(error) => Err(error.clone()),
    };
    match placed {
        Ok(Place::Here(stored)) => {
            if let (Ok(link), Some(id)) = (&link, &id) {
                remember(core, link, id, &stored.frame.position());
            }
            for (mut job, (offset, _)) in jobs.into_iter().zip(stored.frame.placed()) {
                let position = Position {
                    epoch: Arc::clone(&stored.frame.epoch),
                    offset,
                };
                tell(job.reply.take(), Ok(position.into()));
            }
            Some(stored.without_events())
        }
        Ok(Place::Before(accepted, head)) => {
            for mut job in jobs {
                tell(job.reply.take(), Ok(accepted.clone()));
            }
            head
        }
        Err(error) => {
            for mut job in jobs {
                tell(job.reply.take(), Err(error.clone()));
            }
            None
        }
    }
}

async fn place(
    core: &Core,
    link: &Link,
    channel: &[u8],
    retention: Retention,
    (events, id): (Vec<Bytes>, Option<&str>),
    mut head: Option<Stored>,
) -> Result<Place, BrokerError> {
    let streams = JetStream {
        config: &core.config,
        link,
    };
    let deadline = Instant::now() + core.config.timing.answer;
    loop {
        let last = match head.take() {
            Some(last) => last,
            None => not_sent(streams.head(channel).await)?.without_events(),
        };
        let Position { epoch, offset } = last.frame.position();
        let frame = Frame {
            epoch,
            first: offset + 1,
            millis: Clock::unix_millis(),
            events: events.clone(),
        };
        let append = Append {
            channel,
            behind: last.sequence,
            id,
            alone: retention == Retention::Off,
            frame: &frame,
        };
        match streams.append(append).await? {
            Appended::At(sequence) => return Ok(Place::Here(Stored { sequence, frame })),
            Appended::Duplicate(sequence) => {
                let accepted = accepted_before(core, streams, channel, (sequence, id)).await?;
                return Ok(Place::Before(accepted, Some(last)));
            }
            Appended::Conflict => {
                head = core.lanes.heard_behind(channel, &last);
                if head.is_none() || Instant::now() >= deadline {
                    streams.pause(deadline).await?;
                }
            }
        }
    }
}

/// Where the stream stands could not be read: the message itself was not sent.
fn not_sent<T>(read: Result<T, BrokerError>) -> Result<T, BrokerError> {
    read.map_err(|error| match error {
        BrokerError::Unconfirmed => BrokerError::Unavailable,
        other => other,
    })
}

/// Where the first message with this id is. The frame itself may have given way to later ones; then it is remembered.
async fn accepted_before(
    core: &Core,
    streams: JetStream<'_>,
    channel: &[u8],
    (sequence, id): (u64, Option<&str>),
) -> Result<Accepted, BrokerError> {
    let position = if let Some(stored) = streams.by_sequence(channel, sequence).await? {
        stored.frame.position()
    } else {
        let subject = core.config.names.id(id.unwrap_or_default());
        let remembered = streams.remembered(&subject).await?;
        let position = remembered
            .as_ref()
            .and_then(Frame::decode)
            .map(|frame| frame.position());
        // accepted it was; where, nobody knows any more
        position.unwrap_or_else(Position::none)
    };
    Ok(Accepted {
        position,
        duplicate: true,
    })
}

/// Remembers what place an id got, for when its frame has given way to later ones. Not awaited: the frame is there now.
fn remember(core: &Core, link: &Link, id: &str, position: &Position) {
    let frame = Frame {
        epoch: Arc::clone(&position.epoch),
        first: position.offset + 1,
        millis: Clock::unix_millis(),
        events: Vec::new(),
    };
    if let Err(error) = link.publish(&core.config.names.id(id), &frame.encode()) {
        tracing::debug!(%error, "the place of a msgId is not remembered apart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: usize, id: Option<&str>) -> Job {
        Job {
            event: Bytes::from(vec![b'1'; bytes]),
            id: id.map(str::to_owned),
            reply: None,
        }
    }

    fn frames(jobs: impl IntoIterator<Item = Job>) -> Vec<usize> {
        let mut waiting: VecDeque<_> = jobs.into_iter().collect();
        std::iter::from_fn(|| Some(next_frame(&mut waiting).len()).filter(|&length| length > 0)).collect()
    }

    #[test]
    fn a_frame_takes_what_waits_up_to_its_bounds_and_one_with_an_id_is_alone() {
        assert_eq!(frames([]), [0; 0]);
        assert_eq!(frames((0..300).map(|_| job(9, None))), [128, 128, 44]);
        assert_eq!(frames((0..4).map(|_| job(BYTES / 2, None))), [2, 2]);
        assert_eq!(frames((0..2).map(|_| job(BYTES * 2, None))), [1, 1]);
        let mixed = [None, None, Some("a"), Some("b"), None, None];
        assert_eq!(frames(mixed.map(|id| job(9, id))), [2, 1, 1, 2]);
    }
}
