//! The counters by which a revision is judged beside another, from those that Prometheus sees.

use prometheus::core::Metric;
use wsfleet_crds::admin::{GatewayHealth, SLOW_HANDSHAKE_SECONDS};

use super::{Metrics, Rejection};
use crate::protocol::CloseReason;

impl Rejection {
    /// Whether the gateway failed the client. What a drain or the pace of handshakes refuses is neither this nor the
    /// client's fault: after a drain everybody comes at once, and is told when to come again.
    const fn is_failure(self) -> bool {
        matches!(self, Self::Capacity | Self::KeysUnavailable | Self::Broker)
    }

    /// Whether the upgrade was answered with 101 first, so that the client is told why by a close code.
    const fn is_after_upgrade(self) -> bool {
        matches!(
            self,
            Self::UserConnections | Self::Unauthorized | Self::KeysUnavailable | Self::Broker
        )
    }
}

impl CloseReason {
    /// Whether a socket that was served ended as none should.
    const fn is_abnormal(self) -> bool {
        matches!(
            self,
            Self::Cut
                | Self::ProtocolError
                | Self::InvalidData
                | Self::InvalidDeflate
                | Self::SlowConsumer
                | Self::BrokerUnavailable
                | Self::NoPong
                | Self::Internal
        )
    }

    /// Whether it ended because of a drain, or was never served.
    const fn is_beside_the_point(self) -> bool {
        matches!(
            self,
            Self::Drain
                | Self::Unauthorized
                | Self::KeysUnavailable
                | Self::OverCapacity
                | Self::ConnectionLimit
        )
    }
}

impl Metrics {
    /// What became of handshakes and sockets so far.
    pub fn health(&self) -> GatewayHealth {
        let mut health = GatewayHealth {
            handshakes: self.connections.get(),
            ping_buckets: self.pings(),
            handshakes_slow: self.slow_handshakes(),
            ..GatewayHealth::default()
        };
        for (reason, counter) in Rejection::ALL.into_iter().zip(&self.rejected) {
            let count = counter.get();
            match reason {
                Rejection::Draining => continue,
                Rejection::HandshakeRate => {
                    health.handshakes_paced = count;
                    continue;
                }
                _ => {}
            }
            if matches!(reason, Rejection::Capacity) {
                health.handshakes_full = count;
            }
            if !reason.is_after_upgrade() {
                health.handshakes += count;
            }
            if reason.is_failure() {
                health.handshakes_failed += count;
            } else {
                health.handshakes_refused += count;
            }
        }
        for (reason, counter) in CloseReason::ALL.iter().zip(&self.disconnections) {
            if !reason.is_beside_the_point() {
                health.closes += counter.get();
            }
            if reason.is_abnormal() {
                health.abnormal_closes += counter.get();
            }
        }
        health
    }

    /// Handshakes that took longer than [`SLOW_HANDSHAKE_SECONDS`], which is one of the histogram's bounds.
    fn slow_handshakes(&self) -> u64 {
        let metric = self.upgrade.metric();
        let histogram = metric.get_histogram();
        let quick = histogram
            .get_bucket()
            .iter()
            .take_while(|bucket| bucket.upper_bound() <= SLOW_HANDSHAKE_SECONDS)
            .last()
            .map_or(0, prometheus::proto::Bucket::cumulative_count);
        histogram.get_sample_count().saturating_sub(quick)
    }

    /// Pongs by class; the histogram's buckets hold all up to their bounds.
    fn pings<const N: usize>(&self) -> [u64; N] {
        let metric = self.heartbeat_latency.metric();
        let histogram = metric.get_histogram();
        let (mut classes, mut below) = ([0; N], 0);
        let bounded = histogram
            .get_bucket()
            .iter()
            .map(prometheus::proto::Bucket::cumulative_count);
        for (class, up_to) in classes
            .iter_mut()
            .zip(bounded.chain([histogram.get_sample_count()]))
        {
            *class = up_to.saturating_sub(below);
            below = up_to;
        }
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Initiator;

    #[test]
    fn a_handshake_is_counted_once_and_a_drain_speaks_against_nobody() {
        let metrics = Metrics::new("gw").unwrap();
        // upgraded: 3, of which one has a bad token and one meets no keys; not upgraded: full, wrong origin, drained, paced
        metrics.connections.inc_by(3);
        for reason in [
            Rejection::Unauthorized,
            Rejection::KeysUnavailable,
            Rejection::Capacity,
            Rejection::Origin,
            Rejection::Draining,
            Rejection::HandshakeRate,
        ] {
            metrics.rejected(reason);
        }
        for reason in [
            CloseReason::Client,
            CloseReason::Cut,
            CloseReason::Drain,
            CloseReason::Unauthorized,
        ] {
            metrics.closed(reason.code().get(), reason, Initiator::Server, 1.0);
        }
        for seconds in [0.002, 1.0, 1.5, 9.0] {
            metrics.upgrade.observe(seconds);
        }
        for milliseconds in [0.5, 30.0, 30.0, 60_000.0] {
            metrics.heartbeat_latency.observe(milliseconds);
        }
        let health = metrics.health();
        let handshakes = (
            health.handshakes,
            health.handshakes_failed,
            health.handshakes_refused,
        );
        assert_eq!(handshakes, (5, 2, 2));
        assert_eq!(
            (
                health.handshakes_full,
                health.handshakes_paced,
                health.handshakes_slow
            ),
            (1, 1, 2)
        );
        assert_eq!((health.closes, health.abnormal_closes), (2, 1));
        assert_eq!(health.ping_buckets, [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(health.pings(), 4);
    }
}
