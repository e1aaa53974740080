//! What nodes say about their cluster (`CLUSTER NODES`), and what is made of it. Pure.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::super::config::Server;
use super::slot::SLOTS;

/// A slot that nobody claims.
const NOBODY: u16 = u16::MAX;

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    server: Server,
    /// A primary that is not known to have failed.
    serves: bool,
    /// Of two nodes that claim a slot, the one with the higher epoch has it: so the nodes decide among themselves, too.
    epoch: u64,
    slots: Vec<RangeInclusive<usize>>,
}

/// One node's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct View(Vec<Node>);

impl View {
    /// Reads an answer of the node at `asked`; lines that are of no use (no address yet, another form) are left out.
    pub(in super::super) fn parse(text: &str, asked: &Server, by: Address) -> Self {
        Self(text.lines().filter_map(|line| node(line, asked, by)).collect())
    }
}

/// By which of its addresses a node is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Address {
    /// The one that it is reached at.
    Ip,
    /// Its host name, if it announces one (`cluster-announce-hostname`): that is what certificates are made out to.
    Name,
}

/// `<id> <ip:port@cport[,hostname]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> <slot-slot> [<migrating>]`
fn node(line: &str, asked: &Server, by: Address) -> Option<Node> {
    let mut fields = line.split(' ').skip(1);
    let address = fields.next()?;
    let flags: Vec<&str> = fields.next()?.split(',').collect();
    if flags.contains(&"noaddr") || flags.contains(&"handshake") {
        return None;
    }
    let epoch = fields.nth(3)?.parse().ok()?;
    let (ip, port) = address.split('@').next()?.rsplit_once(':')?;
    // behind the name there may be more, as key=value
    let name = address.split(',').nth(1).filter(|name| !name.contains('='));
    let host = match (by, name) {
        (Address::Name, Some(name)) if !name.is_empty() => name,
        // a node that has met nobody does not know its own address
        _ if ip.is_empty() => &asked.host,
        _ => ip,
    };
    Some(Node {
        server: Server {
            host: host.to_owned(),
            port: port.parse().ok().filter(|port| *port != 0)?,
        },
        serves: flags.contains(&"master") && !flags.contains(&"fail"),
        epoch,
        slots: fields.skip(1).filter_map(range).collect(),
    })
}

fn range(text: &str) -> Option<RangeInclusive<usize>> {
    // what is in brackets is on its way, and still where it was
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (last < SLOTS).then_some(first..=last)
}

/// Which node has which slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Topology {
    owners: Vec<u16>,
    nodes: Vec<Server>,
    /// Those of which somebody says that they have failed, or are replicas.
    idle: BTreeSet<Server>,
    /// Every node that is known.
    pub(in super::super) known: BTreeSet<Server>,
}

impl Topology {
    /// Makes one of what several nodes say.
    pub(in super::super) fn merge(views: &[View]) -> Self {
        let mut topology = Self {
            owners: vec![NOBODY; SLOTS],
            nodes: Vec::new(),
            idle: BTreeSet::new(),
            known: BTreeSet::new(),
        };
        let mut epochs = vec![0; SLOTS];
        for node in views.iter().flat_map(|view| &view.0) {
            topology.known.insert(node.server.clone());
            if !node.serves {
                topology.idle.insert(node.server.clone());
            }
            if node.slots.is_empty() {
                continue;
            }
            let index = topology.index(&node.server);
            for slot in node.slots.iter().cloned().flatten() {
                if topology.owners[slot] == NOBODY || node.epoch > epochs[slot] {
                    topology.owners[slot] = index;
                    epochs[slot] = node.epoch;
                }
            }
        }
        topology
    }

    fn index(&mut self, server: &Server) -> u16 {
        let found = self.nodes.iter().position(|node| node == server);
        let index = found.unwrap_or_else(|| {
            self.nodes.push(server.clone());
            self.nodes.len() - 1
        });
        // a cluster has a thousand nodes at most
        u16::try_from(index).unwrap_or(NOBODY)
    }

    /// Who has this slot.
    pub(in super::super) fn owner(&self, slot: usize) -> Option<&Server> {
        self.nodes.get(usize::from(self.owners[slot]))
    }

    /// Whether everybody knows this node as a primary that works, be it without a slot.
    pub(in super::super) fn serves(&self, server: &Server) -> bool {
        self.known.contains(server) && !self.idle.contains(server)
    }

    /// Whether each slot has an owner.
    pub(in super::super) fn is_whole(&self) -> bool {
        self.owners.iter().all(|owner| *owner != NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> Server {
        Server {
            host: "10.0.0.1".into(),
            port,
        }
    }

    fn view(text: &str) -> View {
        View::parse(text, &server(1), Address::Ip)
    }

    const BEFORE: &str = "\
a 10.0.0.1:1@11 myself,master - 0 0 1 connected 0-8191 [93-<-b]
b 10.0.0.1:2@12,two.example master - 0 1426238317239 2 connected 8192-16382 16383
c 10.0.0.1:3@13 slave a 0 1426238316232 1 connected
d :0@0 master,noaddr - 0 0 9 disconnected 0-16383
";

    #[test]
    fn an_answer_says_which_node_has_which_slot() {
        let topology = Topology::merge(&[view(BEFORE)]);
        for (slot, port) in [(0, 1), (93, 1), (8_191, 1), (8_192, 2), (16_383, 2)] {
            assert_eq!(topology.owner(slot), Some(&server(port)), "{slot}");
        }
        assert!(topology.is_whole());
        assert!(topology.serves(&server(2)) && !topology.serves(&server(3)));
        assert_eq!(topology.known, [1, 2, 3].map(server).into());
    }

    #[test]
    fn a_node_is_known_by_its_name_where_that_is_asked_for_and_announced() {
        let more = "e 10.0.0.1:5@15,,shard-id=x master - 0 0 3 connected 7\nf 10.0.0.1:6@16,shard-id=x master - 0 0 3 connected 8";
        let view = View::parse(&[BEFORE, more].concat(), &server(1), Address::Name);
        let topology = Topology::merge(&[view]);
        let two = Server {
            host: "two.example".into(),
            port: 2,
        };
        assert_eq!(topology.owner(8_192), Some(&two));
        for (slot, port) in [(0, 1), (7, 5), (8, 6)] {
            assert_eq!(topology.owner(slot), Some(&server(port)), "{slot}");
        }
    }

    #[test]
    fn the_higher_epoch_decides_whoever_is_asked_first() {
        let after = "\
a 10.0.0.1:1@11 master,fail - 0 0 1 connected
b 10.0.0.1:2@12 master - 0 0 2 connected 8192-16383
c 10.0.0.1:3@13 myself,master - 0 0 3 connected 0-8191
";
        for views in [[view(BEFORE), view(after)], [view(after), view(BEFORE)]] {
            let topology = Topology::merge(&views);
            assert_eq!(topology.owner(93), Some(&server(3)));
            assert_eq!(topology.owner(9_000), Some(&server(2)));
            assert!(
                !topology.serves(&server(1)),
                "one of them says that it has failed"
            );
        }
    }

    #[test]
    fn a_node_that_met_nobody_is_where_it_was_asked_and_nonsense_is_nothing() {
        let topology = Topology::merge(&[view("a :7@17 myself,master - 0 0 0 connected 5\n\nx y z")]);
        assert_eq!(topology.owner(5), Some(&server(7)));
        assert_eq!(topology.owner(6), None);
        assert!(!topology.is_whole());
        for text in [
            "",
            "a 1 master",
            "a h:x@1 master - 0 0 0 connected 1",
            "a h:1@1 master - 0 0 0 c 9-99999",
        ] {
            assert_eq!(Topology::merge(&[view(text)]).owner(1), None, "{text}");
        }
    }
}
