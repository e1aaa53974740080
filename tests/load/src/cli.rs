//! Flags -> [`LoadConfig`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use wsfleet_load::{LoadConfig, Reconnect, RoomLayout, Target, TokenMode};

use crate::progress;

/// What the program was asked to do.
pub(crate) struct Invocation {
    pub(crate) config: LoadConfig,
    pub(crate) duration: Option<Duration>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) control: Option<SocketAddr>,
    pub(crate) quiet: bool,
    /// Hold the sockets until standard input ends, and say on standard output when all are joined.
    pub(crate) idle: bool,
    pub(crate) threads: Option<usize>,
}

/// Load generator for WebSocket gateways: sockets, rooms, publishes, reconnects, and what was lost.
///
/// Exit status: 0 nothing was lost or cut; 3 something was lost, late, duplicated, out of order or cut (1006);
/// 1 the run could not be done; 64 wrong flags.
#[derive(Parser)]
#[command(name = "wsfleet-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Open sockets, join rooms, publish, reconnect as told, report.
    Run(Run),
    /// Open sockets, join rooms and hold them in silence until standard input ends or SIGTERM comes. Prints one JSON
    /// line when all are joined: for measuring what an idle socket costs the server.
    Idle(Idle),
}

#[derive(Args)]
struct Common {
    /// Address of the gateway; with several, each socket takes one at random, but not its client's latest one.
    #[arg(long = "url", default_value = "ws://127.0.0.1:8080/ws")]
    urls: Vec<Target>,
    /// Address of each client's first socket, with several in turn; the later ones go to --url. Not given, all do.
    #[arg(long = "first-url", value_name = "URL")]
    first_urls: Vec<Target>,
    /// Clients to open.
    #[arg(long, default_value_t = 100)]
    connections: u32,
    /// New clients per second.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// First handshakes under way at once, at most.
    #[arg(long, default_value_t = 500)]
    connect_concurrency: u32,
    /// Rooms that each client joins.
    #[arg(long, default_value_t = 1)]
    rooms_per_connection: u32,
    /// Rooms are called <PREFIX><number>.
    #[arg(long, default_value = "load-")]
    room_prefix: String,
    /// How clients prove who they are: `insecure` sends the user's name as the token.
    #[arg(long, value_enum, default_value_t = TokenArg::Insecure)]
    token_mode: TokenArg,
    /// File with the shared secret (HS256) of --token-mode jwt; white space at its end is ignored.
    #[arg(long, value_name = "FILE", required_if_eq("token_mode", "jwt"))]
    jwt_secret_file: Option<PathBuf>,
    /// The tokens' `aud` claim.
    #[arg(long)]
    jwt_audience: Option<String>,
    /// The tokens' `iss` claim.
    #[arg(long)]
    jwt_issuer: Option<String>,
    /// Users are called <PREFIX><number>; give each process its own.
    #[arg(long, default_value = "load-")]
    user_prefix: String,
    /// Wait for the old socket's end before opening the new one, as naive clients do.
    #[arg(long)]
    break_before_make: bool,
    /// Window that a reconnect without a told delay is spread over.
    #[arg(long, value_name = "TIME", default_value = "15s")]
    reconnect_window: Span,
    /// How long a message may be under way before it counts as lost.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    grace: Span,
    /// Do not tell the server where the client was when it comes back: it misses what came meanwhile.
    #[arg(long)]
    no_resume: bool,
    /// How long a message that was not acknowledged is sent again with the same msgId, 5m at most; 0s: it is sent once,
    /// without one.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    retry: Span,
    /// Local addresses to connect from, in turn; each has about 26,000 ports to one server.
    #[arg(long = "source", value_name = "IP", value_delimiter = ',')]
    sources: Vec<IpAddr>,
    /// Write the report as JSON to this file; `-` is standard output, the table then goes to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Serve GET /snapshot, POST /connections {"target": N}, POST /publish {"rate": N} and POST /stop here.
    #[arg(long, value_name = "IP:PORT")]
    control: Option<SocketAddr>,
    /// Worker threads; as many as cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// No progress lines.
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// Rooms in all; clients are dealt over them.
    #[arg(long, default_value_t = 1, conflicts_with = "room_size")]
    rooms: u32,
    /// Members per room instead; rooms are filled one after the other.
    #[arg(long)]
    room_size: Option<u32>,
    /// Messages published per second by all clients together.
    #[arg(long, default_value_t = 10.0)]
    publish_rate: f64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 100)]
    payload_bytes: usize,
    /// How long to run, as 500ms, 60s, 5m or 1h; until SIGINT, SIGTERM or POST /stop if not given.
    #[arg(long, value_name = "TIME")]
    duration: Option<Span>,
}

#[derive(Args)]
struct Idle {
    #[command(flatten)]
    common: Common,
    /// Members per room.
    #[arg(long, default_value_t = 100)]
    room_size: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenArg {
    Anonymous,
    Insecure,
    Jwt,
}

/// A duration with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a duration; give a number with ms, s, m or h, such as 60s");
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, unit) = text.split_at(split);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        Duration::try_from_secs_f64(number * seconds)
            .map(Self)
            .map_err(|_| wrong())
    }
}

/// Reads the command line; what is wrong with it has been printed when this fails.
pub(crate) fn parse() -> Result<Invocation, ExitCode> {
    let cli = Cli::try_parse().map_err(|error| {
        // when even that cannot be printed, the status still says it
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(64)
        } else {
            ExitCode::SUCCESS
        }
    })?;
    let invocation = match cli.command {
        Command::Run(run) => run.invocation(),
        Command::Idle(idle) => idle.invocation(),
    };
    invocation.map_err(|error| {
        progress::complain(&format!("wsfleet-load: {error}"));
        ExitCode::from(64)
    })
}

impl Run {
    fn invocation(self) -> Result<Invocation, String> {
        let mut invocation = self.common.invocation()?;
        invocation.config.rooms = self
            .room_size
            .map_or(RoomLayout::Count(self.rooms), RoomLayout::Size);
        invocation.config.publish_rate = self.publish_rate;
        invocation.config.payload_bytes = self.payload_bytes;
        invocation.duration = self.duration.map(|span| span.0);
        checked(invocation)
    }
}

impl Idle {
    fn invocation(self) -> Result<Invocation, String> {
        let mut invocation = self.common.invocation()?;
        invocation.config.rooms = RoomLayout::Size(self.room_size);
        invocation.config.publish_rate = 0.0;
        invocation.idle = true;
        checked(invocation)
    }
}

fn checked(invocation: Invocation) -> Result<Invocation, String> {
    invocation.config.validate().map_err(|error| error.to_string())?;
    Ok(invocation)
}

impl Common {
    fn invocation(self) -> Result<Invocation, String> {
        let token = self.token()?;
        let first = self
            .urls
            .first()
            .cloned()
            .ok_or("--url: at least one address is needed")?;
        let config = LoadConfig {
            targets: self.urls,
            first_targets: self.first_urls,
            connections: self.connections,
            rate: self.rate,
            connect_concurrency: self.connect_concurrency,
            rooms_per_connection: self.rooms_per_connection,
            room_prefix: self.room_prefix,
            token,
            user_prefix: self.user_prefix,
            reconnect: if self.break_before_make {
                Reconnect::BreakBeforeMake
            } else {
                Reconnect::MakeBeforeBreak
            },
            reconnect_window: self.reconnect_window.0,
            grace: self.grace.0,
            resume: !self.no_resume,
            retry: self.retry.0,
            sources: self.sources,
            ..LoadConfig::new(first)
        };
        let (json, control, quiet, threads) = (self.json, self.control, self.quiet, self.threads);
        Ok(Invocation {
            config,
            duration: None,
            json,
            control,
            quiet,
            idle: false,
            threads,
        })
    }

    fn token(&self) -> Result<TokenMode, String> {
        match (self.token_mode, &self.jwt_secret_file) {
            (TokenArg::Anonymous, _) => Ok(TokenMode::Anonymous),
            (TokenArg::Insecure, _) => Ok(TokenMode::Insecure),
            (TokenArg::Jwt, None) => Err("--jwt-secret-file: needed with --token-mode jwt".into()),
            (TokenArg::Jwt, Some(file)) => {
                let secret = std::fs::read(file)
                    .map_err(|error| format!("--jwt-secret-file: cannot read {}: {error}", file.display()))?;
                let secret = secret.trim_ascii_end().to_vec();
                if secret.is_empty() {
                    return Err(format!("--jwt-secret-file: {} is empty", file.display()));
                }
                let (audience, issuer) = (self.jwt_audience.clone(), self.jwt_issuer.clone());
                Ok(TokenMode::Jwt {
                    secret,
                    audience,
                    issuer,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(flags: &str) -> Result<Invocation, String> {
        let words = ["wsfleet-load"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Run(run) => run.invocation(),
            Command::Idle(idle) => idle.invocation(),
        }
    }

    #[test]
    fn the_flags_of_a_run_become_its_settings() {
        let run = run(
            "run --url ws://127.0.0.1:9/ws --connections 2000 --rooms 20 --publish-rate 200 --duration 60s \
                       --source 127.0.0.1,127.0.0.2 --break-before-make --first-url ws://127.0.0.1:8/ws --no-resume --retry 0s",
        )
        .unwrap();
        assert!(!run.config.resume && run.config.retry.is_zero());
        assert_eq!(run.config.rooms, RoomLayout::Count(20));
        assert_eq!(run.config.sources.len(), 2);
        assert_eq!((run.config.targets.len(), run.config.first_targets.len()), (1, 1));
        assert_eq!(run.config.reconnect, Reconnect::BreakBeforeMake);
        assert_eq!(run.duration, Some(Duration::from_mins(1)));
        assert!(!run.idle);
    }

    #[test]
    fn idle_clients_publish_nothing_and_fill_rooms_one_after_the_other() {
        let idle = run("idle --connections 18000 --room-size 100").unwrap();
        assert_eq!(idle.config.rooms, RoomLayout::Size(100));
        assert!(idle.config.resume && idle.config.retry == Duration::from_mins(1));
        assert!(idle.idle && idle.config.publish_rate.abs() < f64::EPSILON);
    }

    #[test]
    fn a_wrong_flag_is_named_with_what_is_allowed() {
        for (flags, expected) in [
            ("run --duration 60", "such as 60s"),
            ("run --url http://127.0.0.1/", "only ws://"),
            ("run --rate 0", "--rate"),
            ("run --rooms 3 --room-size 4", "--room-size"),
            ("run --token-mode jwt", "--jwt-secret-file"),
            (
                "run --token-mode jwt --jwt-secret-file /nonexistent",
                "cannot read /nonexistent",
            ),
            ("run --rooms 1 --rooms-per-connection 2", "--rooms-per-connection"),
        ] {
            let error = run(flags).err().unwrap();
            assert!(error.contains(expected), "{flags}: {error}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!("1.5m".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert!("5d".parse::<Span>().is_err());
        assert!("-5s".parse::<Span>().is_err());
    }
}
