//! What the page shows of each workload, and what it says was done.

use crate::workload::{Scale, Workload};

/// How a number is shown.
#[derive(Clone, Copy)]
pub(crate) enum Show {
    /// With so many decimals.
    Number(usize),
    /// A large one, with blanks between thousands.
    Thousands,
    /// Bytes, in MiB.
    Mebibytes,
    /// The ratio to the floor.
    Ratio,
    /// All close codes.
    Closes,
}

/// A picture of a section.
pub(crate) struct Picture {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// Its series: name, and the value that it shows.
    pub(crate) series: &'static [(&'static str, &'static str)],
}

pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) key: &'static str,
    pub(crate) show: Show,
}

/// A workload's part of the page.
pub(crate) struct Section {
    pub(crate) workload: Workload,
    pub(crate) title: &'static str,
    pub(crate) columns: &'static [Column],
    pub(crate) picture: Option<Picture>,
}

const fn column(title: &'static str, key: &'static str, show: Show) -> Column {
    Column { title, key, show }
}

/// In the order of the page.
pub(crate) const SECTIONS: [Section; 15] = [
    Section {
        workload: Workload::Memory,
        title: "Memory of an idle socket",
        columns: &[
            column("no socket", "empty_bytes", Show::Mebibytes),
            column("all joined", "full_bytes", Show::Mebibytes),
            column("bytes per socket", "bytes_per_socket", Show::Thousands),
            column("after load", "bytes_per_socket_after_load", Show::Thousands),
        ],
        picture: Some(Picture {
            title: "Resident memory per idle socket, less is better",
            unit: "bytes",
            series: &[
                ("idle", "bytes_per_socket"),
                ("after load", "bytes_per_socket_after_load"),
            ],
        }),
    },
    Section {
        workload: Workload::Fanout,
        title: "Fan-out, one message at a time",
        columns: &[
            column("deliveries/s", "deliveries_per_second", Show::Thousands),
            column("× floor", "deliveries_per_second", Show::Ratio),
            column("CPU s per million", "cpu_seconds_per_million", Show::Number(2)),
            column("× floor", "cpu_seconds_per_million", Show::Ratio),
        ],
        picture: Some(Picture {
            title: "Deliveries per second, one message at a time, more is better",
            unit: "/s",
            series: &[("", "deliveries_per_second")],
        }),
    },
    Section {
        workload: Workload::Burst,
        title: "Fan-out, bursts",
        columns: &[
            column("deliveries/s", "deliveries_per_second", Show::Thousands),
            column("× floor", "deliveries_per_second", Show::Ratio),
            column("CPU s per million", "cpu_seconds_per_million", Show::Number(2)),
            column("× floor", "cpu_seconds_per_million", Show::Ratio),
        ],
        picture: Some(Picture {
            title: "Deliveries per second, in bursts, more is better",
            unit: "/s",
            series: &[("", "deliveries_per_second")],
        }),
    },
    Section {
        workload: Workload::Writes,
        title: "System calls of a burst",
        columns: &[column(
            "write calls per member and burst",
            "writes_per_member_and_burst",
            Show::Number(2),
        )],
        picture: None,
    },
    Section {
        workload: Workload::Latency,
        title: "Latency at a fixed rate",
        columns: &[
            column("p50, ms", "p50_ms", Show::Number(1)),
            column("× floor", "p50_ms", Show::Ratio),
            column("p99, ms", "p99_ms", Show::Number(1)),
            column("× floor", "p99_ms", Show::Ratio),
        ],
        picture: Some(Picture {
            title: "Latency at 20 messages per second, less is better",
            unit: "ms",
            series: &[("p50", "p50_ms"), ("p99", "p99_ms")],
        }),
    },
    Section {
        workload: Workload::Neighbours,
        title: "Small rooms beside a large one",
        columns: &[
            column("p50 alone, ms", "alone_p50_ms", Show::Number(1)),
            column("p99 alone, ms", "alone_p99_ms", Show::Number(1)),
            column("p50 beside, ms", "beside_p50_ms", Show::Number(1)),
            column("p99 beside, ms", "beside_p99_ms", Show::Number(1)),
            column("large room's p99, ms", "large_p99_ms", Show::Number(0)),
        ],
        picture: Some(Picture {
            title: "p99 of small rooms, less is better",
            unit: "ms",
            series: &[("alone", "alone_p99_ms"), ("beside", "beside_p99_ms")],
        }),
    },
    Section {
        workload: Workload::Storm,
        title: "Connect storm",
        columns: &[
            column("connects/s", "connects_per_second", Show::Thousands),
            column("× floor", "connects_per_second", Show::Ratio),
            column("p50, ms", "p50_ms", Show::Number(1)),
            column("p99, ms", "p99_ms", Show::Number(1)),
        ],
        picture: Some(Picture {
            title: "Connects per second, more is better",
            unit: "/s",
            series: &[("", "connects_per_second")],
        }),
    },
    Section {
        workload: Workload::Deploy,
        title: "Deploy",
        columns: &[
            column("closes by code", "", Show::Closes),
            column("in the busiest second", "busiest_second", Show::Thousands),
            column("last close, s", "last_close_seconds", Show::Number(1)),
            column("exit, s", "exit_seconds", Show::Number(1)),
            column("exit status", "exit_status", Show::Number(0)),
        ],
        picture: Some(Picture {
            title: "Sockets closed in the busiest second of a deploy, less is better",
            unit: "",
            series: &[("", "busiest_second")],
        }),
    },
    Section {
        workload: Workload::Drain,
        title: "Drain with the default window",
        columns: &[
            column("closes by code", "", Show::Closes),
            column("in the busiest second", "busiest_second", Show::Thousands),
            column("last close, s", "last_close_seconds", Show::Number(1)),
            column("exit status", "exit_status", Show::Number(0)),
            column("stay when taken back half way", "stayed", Show::Thousands),
            column("closed after that", "closed_after_resume", Show::Thousands),
        ],
        picture: None,
    },
    Section {
        workload: Workload::Stalled,
        title: "Stalled readers",
        columns: STALLED,
        picture: None,
    },
    Section {
        workload: Workload::Dropping,
        title: "Stalled readers that may lose messages",
        columns: STALLED,
        picture: None,
    },
    Section {
        workload: Workload::BackendRoom,
        title: "A back end's messages to one room on three servers",
        columns: &[
            column("deliveries/s", "deliveries_per_second", Show::Thousands),
            column("without history", "off_deliveries_per_second", Show::Thousands),
            column("with ÷ without", "share", Show::Number(2)),
        ],
        picture: None,
    },
    Section {
        workload: Workload::BackendRooms,
        title: "A back end's messages to many rooms on three servers",
        columns: &[
            column("publishes/s", "publishes_per_second", Show::Thousands),
            column("without history", "off_publishes_per_second", Show::Thousands),
            column("with ÷ without", "share", Show::Number(2)),
        ],
        picture: None,
    },
    Section {
        workload: Workload::Resubscribe,
        title: "All rooms are subscribed again",
        columns: &[
            column("seconds", "seconds", Show::Number(2)),
            column("links to Redis", "links", Show::Number(0)),
            column("most memory", "resident_bytes", Show::Mebibytes),
        ],
        picture: None,
    },
    Section {
        workload: Workload::Comeback,
        title: "All clients come back at once",
        columns: &[
            column("all back, s", "back_seconds", Show::Number(1)),
            column("p50, ms", "p50_ms", Show::Number(1)),
            column("p99, ms", "p99_ms", Show::Number(1)),
            column("least in a full second, %", "least_percent", Show::Number(1)),
            column("most in a second, %", "most_percent", Show::Number(1)),
            column("refused upgrades", "refused", Show::Thousands),
            column("most memory of a gateway", "resident_bytes", Show::Mebibytes),
        ],
        picture: None,
    },
];

const STALLED: &[Column] = &[
    column("memory growth", "growth_bytes", Show::Mebibytes),
    column("in, s", "stalled_seconds", Show::Number(1)),
    column("p99 before, ms", "alone_p99_ms", Show::Number(1)),
    column("while they fill up, ms", "filling_p99_ms", Show::Number(1)),
    column("then, ms", "beside_p99_ms", Show::Number(1)),
    column("then ÷ before", "p99_ratio", Show::Number(2)),
];

impl Section {
    /// What was done.
    pub(crate) fn what(&self, scale: &Scale) -> String {
        let Scale {
            idle,
            crowd,
            room,
            burst,
            drain_window,
            usual_window,
            stalled,
            healthy,
            rooms,
            comeback,
            handshakes,
            ..
        } = scale;
        match self.workload {
            Workload::Memory => {
                format!(
                    "{idle} sockets, each joined to a room of 100; `VmRSS` of the server. After load: in a room of {crowd}, after \
                     fan-out as below; more than 2,048 bytes of the gateway fail the run."
                )
            }
            Workload::Fanout => format!(
                "One room of {crowd}, messages of 100 bytes; the next is published when every member has got the last."
            ),
            Workload::Burst => format!(
                "{burst} messages of 100 bytes at once to a room of {room}; the next burst when every member has got the last."
            ),
            Workload::Writes => format!(
                "{burst} messages of 100 bytes at once to a room of {room}, under `strace -f -c`. \
                 More than 10 of the gateway fail the run."
            ),
            Workload::Latency => format!(
                "20 messages of 100 bytes per second to a room of {room}, from the publisher's write to each member's read."
            ),
            Workload::Neighbours => format!(
                "100 messages of 100 bytes per second in 100 rooms of 10: alone, and beside one message of 64 KiB per \
                 second to a room of {crowd}."
            ),
            Workload::Storm => {
                format!("{crowd} sockets, 500 at a time, from connect to joined. The floor checks no token.")
            }
            Workload::Deploy => format!(
                "SIGTERM with {crowd} sockets whose clients do nothing until they are closed. 1005: closed without a code, \
                 1006: cut. The gateway's drain window is shortened from 60 s to {drain_window} s."
            ),
            Workload::Drain => format!(
                "{crowd} sockets whose clients do nothing until they are closed, and a window of {usual_window} s: once to its end \
                 after SIGTERM, once by the admin API and taken back half way. Any of these fails the run: more than 1.5 times the \
                 mean in the busiest second, a close without the code or later than 2 s after the window, another exit status \
                 than 0, a close after the drain was taken back."
            ),
            Workload::Stalled => format!(
                "One room gets 1 MB/s, in messages of 10 KB; {healthy} members read, {stalled} more join and do not. How much the \
                 server's memory grows (it is stopped at 2 GiB), and the p99 of the members that read: before, for the 2 s in \
                 which the kernel's buffers of the others fill up, and then. The gateway closes who is too slow; more than 1.1 \
                 times `queueBytes` for each of them fails the run."
            ),
            Workload::Dropping => {
                "The same in a room with `--slow-consumer ...=dropOldest`: those who do not read stay connected.".to_owned()
            }
            Workload::BackendRoom => format!(
                "Three servers that share a Redis, {crowd} members of one room spread over them; a back end publishes 100 bytes by \
                 HTTP to each server in turn, the next when every member has got the last. Socket.IO has its Redis adapter, which \
                 keeps nothing."
            ),
            Workload::BackendRooms => format!(
                "The same with {crowd} rooms of one member; the back end has 96 requests under way, and waits for the answers \
                 and the deliveries of these before the next 96."
            ),
            Workload::Resubscribe => format!(
                "{rooms} rooms of one member on one gateway; Redis cuts the subscription link. From then until all are subscribed \
                 and compared with their streams, as `ws_broker_resubscribe_seconds` has it; then each client gets a message. More \
                 than 2 links to Redis fail the run."
            ),
            Workload::Comeback => format!(
                "{comeback} clients of three gateways that are killed come back to three others, which share a Redis and let in \
                 {handshakes} per second each; they wait as long as a 503 says. Meanwhile 300 clients that are connected there get \
                 20 messages per second. It fails when one does not come back, a message is lost, or a second's upgrades are \
                 more than 5 % from the setting (a second is full when as many again were refused)."
            ),
        }
    }
}
