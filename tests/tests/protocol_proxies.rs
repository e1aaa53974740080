//! The examples of proxies, in the real nginx and the real HAProxy, before two gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;
use wsfleet_crds::admin::{DrainMode, DrainRequest};
use wsfleet_tests::client::{Client, Connect, Upgrade};
use wsfleet_tests::front::{Front, Program};
use wsfleet_tests::gateway::{Gateway, OPEN};
use wsfleet_tests::redis::RedisServer;
use wsfleet_tests::wait::until_async;

/// What no log may have.
const SECRET: &str = "not-to-be-logged";
/// Clients' addresses.
const SOURCES: u8 = 32;

/// Two gateways on one Redis, and a proxy before them.
struct House {
    gateways: [Gateway; 2],
    front: Front,
    _redis: RedisServer,
    _key: TempDir,
}

impl House {
    async fn build(program: Program, example: &str, flags: &[&str]) -> Result<Self> {
        let key = TempDir::new()?;
        let path = key.path().join("key");
        std::fs::write(&path, "a key of sixteen bytes or more")?;
        let path = path.to_str().context("a path")?;
        let redis = RedisServer::start().await?;
        let gateway = |id| {
            let own = ["--server-id", id, "--broker", &redis.url()];
            let all = [
                &OPEN,
                &own[..],
                &["--trusted-hops", "1", "--routing-key-file", path],
                flags,
            ];
            Gateway::start(&all.concat())
        };
        let gateways = [gateway("gateway-1")?, gateway("gateway-2")?];
        for gateway in &gateways {
            gateway.ready().await?;
        }
        let addresses = gateways.each_ref().map(|gateway| gateway.ports.clients);
        let front = Front::start(program, example, addresses).await?;
        Ok(Self {
            gateways,
            front,
            _redis: redis,
            _key: key,
        })
    }

    fn way(&self) -> Connect {
        Connect::to(self.front.address).token(SECRET)
    }

    /// The gateway of that name, and the other.
    fn gateway(&mut self, name: &str) -> &mut Gateway {
        &mut self.gateways[usize::from(name == "gateway-2")]
    }
}

/// A client that was let in, where it is, and the token that it was given.
async fn welcomed(way: Connect) -> Result<(Client, String, String)> {
    let mut client = way.open().await?;
    let welcome = client.expect("welcome").await?;
    let token = client.expect("routing_token").await?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("a text");
    Ok((client, text(&welcome["serverId"])?, text(&token["token"])?))
}

async fn place(way: Connect) -> Result<String> {
    Ok(welcomed(way).await?.1)
}

fn other(name: &str) -> &'static str {
    if name == "gateway-1" {
        "gateway-2"
    } else {
        "gateway-1"
    }
}

fn order(mode: DrainMode) -> DrainRequest {
    DrainRequest {
        drain_id: "d".to_owned(),
        epoch: 1,
        mode,
        rate_per_second: None,
        lease_seconds: None,
        deadline: None,
        order: wsfleet_crds::admin::DrainOrder::default(),
        close_code: 1012,
        reconnect_window_seconds: 1,
        keep_connections: None,
        min_age_seconds: None,
    }
}

async fn a_token_leads_back_and_elsewhere_while_its_gateway_takes_nobody(program: Program) -> Result<()> {
    let mut house = House::build(program, "by-routing", &["--drain-window", "1"]).await?;
    let mut tokens = BTreeMap::new();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (client, name, token) = welcomed(house.way()).await?;
        clients.push(client);
        tokens.insert(name, token);
    }
    assert_eq!(tokens.len(), 2, "the one with the fewest connections: {tokens:?}");
    for (name, token) in &tokens {
        for _ in 0..5 {
            assert_eq!(place(house.way().routing(token)).await?, *name);
        }
        let own = house
            .gateway(name)
            .metric("ws_routing_hints_total", &["result=\"own\""]);
        assert!((own.await? - 5.0).abs() < 0.5, "every one came back");
    }
    let passed = "nobody.gateway-1x";
    for odd in [passed, "x", ".", "a.b.c", "%2e%00", "gateway-1"] {
        place(house.way().routing(odd))
            .await
            .with_context(|| odd.to_owned())?;
    }
    let (first, rest) = clients.split_first_mut().context("clients")?;
    first.join("r").await?;
    for client in &mut *rest {
        client.join("r").await?;
    }
    first.say("r", json!("through the proxy")).await?;
    for client in rest {
        assert_eq!(
            client.expect("room_message").await?["payload"],
            "through the proxy"
        );
    }

    let (name, token) = tokens.pop_first().context("two")?;
    house.gateway(&name).drain(&order(DrainMode::Cordon)).await?;
    for _ in 0..5 {
        assert_eq!(
            place(house.way().routing(&token)).await?,
            other(&name),
            "cordoned"
        );
        assert_eq!(place(house.way()).await?, other(&name), "cordoned");
    }
    house.gateway(&name).drain(&order(DrainMode::Resume)).await?;
    until_async("it is back", || async {
        Ok(place(house.way().routing(&token)).await? == name)
    })
    .await?;
    house.gateway(&name).shut_down();
    house.gateway(&name).ended().await?;
    for _ in 0..5 {
        assert_eq!(place(house.way().routing(&token)).await?, other(&name), "gone");
    }
    let log = house.front.log()?;
    assert!(log.contains("GET /ws"), "{log}");
    assert!(!log.contains(SECRET) && !log.contains("routing="), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_routing_nginx_leads_a_token_back_and_elsewhere_while_its_gateway_takes_nobody() -> Result<()> {
    a_token_leads_back_and_elsewhere_while_its_gateway_takes_nobody(Program::Nginx).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_routing_haproxy_leads_a_token_back_and_elsewhere_while_its_gateway_takes_nobody() -> Result<()> {
    a_token_leads_back_and_elsewhere_while_its_gateway_takes_nobody(Program::Haproxy).await
}

fn sources() -> impl Iterator<Item = IpAddr> {
    (0..SOURCES).map(|number| Ipv4Addr::new(127, 0, number, number.wrapping_mul(37) | 1).into())
}

async fn an_address_leads_to_one_gateway_while_that_is_there(program: Program) -> Result<()> {
    let mut house = House::build(program, "by-address", &["--drain-window", "1"]).await?;
    let mut places = BTreeMap::new();
    for source in sources() {
        let name = place(house.way().from(source)).await?;
        for _ in 0..3 {
            assert_eq!(place(house.way().from(source)).await?, name, "{source}");
        }
        places.insert(source, name);
    }
    let used: BTreeSet<_> = places.values().collect();
    assert_eq!(used.len(), 2, "{places:?}");
    let gone = "gateway-2";
    house.gateway(gone).drain(&order(DrainMode::Cordon)).await?;
    for source in places.keys() {
        assert_eq!(place(house.way().from(*source)).await?, other(gone), "{source}");
    }
    house.gateway(gone).drain(&order(DrainMode::Resume)).await?;
    for (source, name) in &places {
        until_async("all are where they were", || async {
            Ok(place(house.way().from(*source)).await? == *name)
        })
        .await?;
    }
    house.gateway(gone).shut_down();
    house.gateway(gone).ended().await?;
    for source in places.keys() {
        assert_eq!(place(house.way().from(*source)).await?, other(gone), "{source}");
    }
    let log = house.front.log()?;
    assert!(log.contains("GET /ws"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_address_nginx_leads_each_to_one_gateway_while_that_is_there() -> Result<()> {
    an_address_leads_to_one_gateway_while_that_is_there(Program::Nginx).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_address_haproxy_leads_each_to_one_gateway_while_that_is_there() -> Result<()> {
    an_address_leads_to_one_gateway_while_that_is_there(Program::Haproxy).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_address_arrives_whatever_the_client_says_it_is() -> Result<()> {
    for program in [Program::Nginx, Program::Haproxy] {
        for example in ["by-routing", "by-address"] {
            let limits = ["--limit", "connectionsPerIp=1"];
            let house = House::build(program, example, &limits).await?;
            let from = |last| house.way().from(Ipv4Addr::new(127, 0, 0, last).into());
            let says = |way: Connect, address: &str| way.header("x-forwarded-for", address);
            let (_first, _, token) = welcomed(says(from(2), "192.0.2.1")).await?;
            // both on the same gateway, by the token or by the address
            match says(from(2).routing(&token), "192.0.2.2").upgrade().await? {
                Upgrade::Refused(answer) => assert_eq!(answer.status, 429, "{program:?} {example}"),
                Upgrade::Open(_) => panic!("{program:?} {example}: two connections from one address"),
            }
            for last in 3..8 {
                place(says(from(last).routing(&token), "192.0.2.1")).await?;
            }
        }
    }
    Ok(())
}
