//! Redis and its client.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::{Host, Process, program};

/// Where it listens.
pub const PORT: u16 = 6379;

/// Small values and a large one.
pub fn works(client: &Host, server: &Host, address: IpAddr) {
    let _redis = serve(server, address);
    answers(client, address, PORT);
}

/// Starts a server that listens at this address alone.
pub fn serve(server: &Host, address: IpAddr) -> Process {
    let bind = address.to_string();
    let line = [
        "--bind",
        &bind,
        "--port",
        "6379",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
        ".",
    ];
    let mut redis =
        server.spawn_as_user(&[&[program("redis-server").as_str()], &line[..]].concat());
    redis.says("Ready to accept connections", Duration::from_secs(20));
    redis
}

/// Small values and a large one.
pub fn answers(client: &Host, address: IpAddr, port: u16) {
    let cli = format!("redis-cli -h {address} -p {port}");
    let ask = |line: &str| client.sh(&format!("{cli} {line}")).ok();
    assert_eq!(ask("set hive bees"), "OK");
    assert_eq!(ask("get hive"), "bees");
    let large = client.sh(&format!("head -c 5000000 /dev/zero | {cli} -x set large"));
    assert_eq!(large.ok(), "OK");
    assert_eq!(ask("strlen large"), "5000000");
}
