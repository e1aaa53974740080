//! The kernel's table of connections (conntrack). Where a packet filter asks for it, as that of a cluster's nodes does, every
//! refused client has an entry for two minutes, and packets of more connections than there are entries are dropped.

use std::fs;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// What to do about it, when there is hardly an entry left.
pub(super) fn is_full() -> Option<String> {
    let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
    note(number(COUNT)?, number(MOST)?)
}

fn note(count: u64, most: u64) -> Option<String> {
    (count.saturating_mul(10) >= most.saturating_mul(9)).then(|| {
        format!(
            "the kernel's table of connections is full ({count} of {most}), packets are dropped: end the local cluster, whose \
             packet filter asks for it (tests/cluster/down.sh), or raise net.netfilter.nf_conntrack_max"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_that_is_nearly_full_is_named() {
        assert_eq!(note(100_000, 262_144), None);
        let said = note(261_513, 262_144).unwrap();
        assert!(said.contains("261513 of 262144"), "{said}");
    }
}
