//! Redis and its client.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::{Host, program};

/// Small values and a large one.
pub fn works(client: &Host, server: &Host, address: IpAddr) {
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
    let ask = |line: &str| client.sh(&format!("redis-cli -h {address} {line}")).ok();
    assert_eq!(ask("set hive bees"), "OK");
    assert_eq!(ask("get hive"), "bees");
    let large = client.sh(&format!(
        "head -c 5000000 /dev/zero | redis-cli -h {address} -x set large"
    ));
    assert_eq!(large.ok(), "OK");
    assert_eq!(ask("strlen large"), "5000000");
}
