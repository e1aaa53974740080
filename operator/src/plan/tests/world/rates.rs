//! How fast sockets may be closed.

use wsfleet_crds::admin::GatewayPhase;

use super::World;

impl World {
    /// What no faults of ours may break: the leases in force stay within the budget of the fleet at the time when they
    /// were granted.
    pub(super) fn check_rates(&mut self) {
        self.recent.push_back(self.sockets() + self.homeless);
        if self.recent.len() > 32 {
            self.recent.pop_front();
        }
        let drain = &self.cluster.spec.drain;
        let fleet = self.recent.iter().copied().max().unwrap_or(0);
        let allowed = (fleet * u64::from(drain.max_disconnect_permille))
            .max(u64::from(drain.min_disconnects_per_second) * 1000)
            .max(1);
        let granted = self.granted();
        assert!(
            granted <= allowed + self.pods.len() as u64,
            "granted {granted} of {allowed} millis"
        );
    }

    /// Closes per second, in thousandths, that the leases in force allow.
    pub(in super::super) fn granted(&self) -> u64 {
        self.pods
            .iter()
            .filter(|pod| pod.gateway == GatewayPhase::Draining)
            .filter_map(|pod| pod.lease.filter(|lease| lease.until > self.now))
            .map(|lease| lease.rate_millis)
            .sum()
    }
}
