//! The program itself: flags, control port, exit status.

use std::process::Stdio;
use std::time::Duration;

use crate::server::{Fault, Server};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

fn program(server: &Server, flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsfleet-load"));
    command
        .args(flags.split_whitespace())
        .args(["--url", &server.url()]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_run_is_steered_over_its_control_port_and_leaves_a_report() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.json");
    let flags = "run --connections 5 --rate 100 --publish-rate 50 --grace 300ms --control 127.0.0.1:0 --json";
    let mut child = program(&server, &format!("{flags} {}", file.display()))
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    let address = first.strip_prefix("control on http://").unwrap().to_owned();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

    assert!(
        http(&address, &post("/connections", r#"{"target":8}"#))
            .await
            .starts_with("HTTP/1.1 202")
    );
    let wrong = http(&address, &post("/connections", r#"{"traget":8}"#)).await;
    assert!(
        wrong.starts_with("HTTP/1.1 422") && wrong.contains("unknown field `traget`"),
        "{wrong}"
    );
    let eight_chat = async {
        loop {
            let answer = http(
                &address,
                "GET /snapshot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            )
            .await;
            let snapshot: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            if snapshot["sockets"]["joined"] == 8 && snapshot["deliveries"]["total"].as_u64() > Some(50) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), eight_chat).await.unwrap();
    http(&address, &post("/stop", "")).await;
    let output = timeout(Duration::from_mins(1), child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("8 of 8 joined") && table.contains("verdict         ok"),
        "{table}"
    );
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(report["verdict"]["lost"], 0);
    assert_eq!(report["sockets"]["joined"], 8);
}

#[tokio::test]
async fn idle_sockets_are_held_until_standard_input_ends() {
    let server = Server::start().await;
    let mut child = program(&server, "idle --connections 12 --room-size 4 --rate 1000 --quiet")
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    timeout(Duration::from_mins(1), stdout.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(line, "{\"connected\":12,\"joined\":12}\n");
    drop(child.stdin.take());
    let status = timeout(Duration::from_mins(1), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_exit_status_says_how_it_went() {
    let server = Server::start().await;
    let status = async |flags: &str| {
        let output = program(&server, flags).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = status("run --duration 5").await;
    assert_eq!(code, Some(64));
    assert!(error.contains("such as 60s"), "{error}");
    let (code, error) = status("run --connections 30000000").await;
    assert_eq!(code, Some(64));
    assert!(error.contains("--connections"), "{error}");
    let nobody = "run --url ws://127.0.0.1:1/ws --connections 1 --duration 300ms --quiet";
    let output = Command::new(env!("CARGO_BIN_EXE_wsfleet-load"))
        .args(nobody.split(' '))
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("connection refused")
    );
    server.fault(5, Fault::Drop);
    let run = "run --connections 4 --rate 1000 --publish-rate 100 --duration 1s --grace 300ms --json -";
    let output = program(&server, run).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"]["ok"], false);
    assert_eq!(report["verdict"]["lost"], 1);
}
