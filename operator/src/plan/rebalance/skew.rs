//! How uneven the fleet is, and whether this is a moment to do something about it.

use wsfleet_crds::v1alpha1::RebalanceSpec;

use crate::plan::draft::Pass;
use crate::plan::fleet::{Member, State};
use crate::plan::time::after;

/// Per cent of its capacity above which a gateway is hot: it is relieved although the fleet has room on average, where
/// more gateways would not relieve it.
const HOT_PERCENT: u64 = 90;

/// What each gateway holds, all numbers fresh.
pub(super) struct Survey<'a> {
    members: Vec<&'a Member<'a>>,
    total: u64,
    spec: RebalanceSpec,
    /// Above average by so many per cent, a pod becomes a donor when there are some.
    join_skew: u64,
}

/// Looks at the fleet; or says why nothing may be evened out now.
pub(super) fn survey<'a>(pass: &Pass<'a>) -> Result<Survey<'a>, &'static str> {
    let spec = pass.cluster.spec.rebalance;
    let fleet = pass.fleet;
    let all = |test: &dyn Fn(&Member<'_>) -> bool| fleet.members.iter().all(test);
    if !spec.enabled {
        return Err("rebalance.enabled is false");
    }
    if fleet.moving || pass.course.back || !all(&|it| it.pod.revision == pass.target.hash) {
        return Err("the fleet is not of one revision");
    }
    if !all(&|it| it.is_good()) {
        return Err("pods leave");
    }
    if !all(&|it| it.available) || fleet.members.len() != pass.size.desired as usize {
        return Err("the fleet changes its size");
    }
    if !all(&|it| is_fresh(pass, it)) {
        return Err("numbers of sockets are missing");
    }
    if fleet.members.len() < 2 {
        return Err("there is only one gateway");
    }
    let (stop, most) = (u64::from(spec.stop_skew), u64::from(spec.max_skew));
    Ok(Survey {
        members: fleet.members.iter().collect(),
        total: fleet.connections(),
        spec,
        join_skew: u64::midpoint(stop, most),
    })
}

fn is_fresh(pass: &Pass<'_>, member: &Member<'_>) -> bool {
    let stale = pass.cluster.spec.autoscaling.metrics.stale_seconds;
    // what the gateway said itself, also where the autoscaler asks somebody else: it will have to hear, too
    let told = member.pod.gateway.as_ref();
    told.is_some_and(|(at, _)| after(*at, stale) > pass.now)
}

impl<'a> Survey<'a> {
    /// Pods that accept, or should.
    pub(super) fn staying(&self) -> impl Iterator<Item = &'a Member<'a>> + '_ {
        let members = self.members.iter().copied();
        members.filter(|member| member.state == State::Staying)
    }

    /// Sockets of the fleet.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Sockets of a gateway on average, rounded up. All gateways of a revision have the same capacity, so the average is
    /// what each should hold.
    pub(super) fn mean(&self) -> u64 {
        self.total.div_ceil(self.pods())
    }

    /// Sockets of the fullest gateway.
    pub(super) fn fullest(&self) -> u64 {
        self.members
            .iter()
            .map(|it| it.known_connections())
            .max()
            .unwrap_or(0)
    }

    /// So many gateways accept at least while new sockets are only steered: half of them.
    pub(super) fn least_accepting(&self) -> usize {
        self.members.len().div_ceil(2)
    }

    /// Whether `member` alone is a reason to begin.
    pub(super) fn is_crowded(&self, pass: &Pass<'_>, member: &Member<'_>) -> bool {
        let most = u64::from(self.spec.max_skew);
        self.has_excess(member) && (self.reaches(member, most) || self.is_hot(pass, member))
    }

    /// Whether `member` is to give sockets away, once it is done at all.
    pub(super) fn gives(&self, pass: &Pass<'_>, member: &Member<'_>) -> bool {
        let hot = self.is_hot(pass, member);
        self.has_excess(member) && (self.is_above(member, self.join_skew) || hot)
    }

    /// Whether `member` is still above what is called even.
    pub(super) fn is_above_stop(&self, member: &Member<'_>) -> bool {
        self.is_above(member, u64::from(self.spec.stop_skew))
    }

    /// The same fleet, in which all give that are not even.
    pub(super) fn to_the_end(&self) -> Self {
        Self {
            members: self.members.clone(),
            join_skew: u64::from(self.spec.stop_skew),
            ..*self
        }
    }

    fn pods(&self) -> u64 {
        (self.members.len() as u64).max(1)
    }

    fn has_excess(&self, member: &Member<'_>) -> bool {
        let least = u64::from(self.spec.min_excess);
        member.known_connections() * self.pods() > self.total + least * self.pods()
    }

    fn is_above(&self, member: &Member<'_>, percent: u64) -> bool {
        member.known_connections() * self.pods() * 100 > self.total * (100 + percent)
    }

    /// At least so far above: 12 gateways after 10 are 20 % above exactly.
    fn reaches(&self, member: &Member<'_>, percent: u64) -> bool {
        member.known_connections() * self.pods() * 100 >= self.total * (100 + percent)
    }

    fn is_hot(&self, pass: &Pass<'_>, member: &Member<'_>) -> bool {
        let spec = &pass.cluster.spec;
        let capacity = u64::from(spec.gateway.capacity.max_connections);
        let target = u64::from(spec.autoscaling.target_utilization);
        member.known_connections() * 100 > capacity * HOT_PERCENT
            && self.total * 100 <= capacity * self.pods() * target
            && self.is_above_stop(member)
    }
}
