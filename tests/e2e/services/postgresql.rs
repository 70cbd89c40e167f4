//! PostgreSQL and psql.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::{Host, Process, TESTER, program};

/// Where it listens.
pub const PORT: u16 = 5432;

/// Makes the database, and the self-signed certificate it shows.
const PREPARE: &str = "umask 077 && \"$0\" -D db -A trust -U tester --no-sync >&2 && \
    echo 'host all all 0.0.0.0/0 trust' >> db/pg_hba.conf && \
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db -keyout db/server.key -out db/server.crt";

/// Queries with and without TLS, from the address that the client has.
pub fn works(client: &Host, server: &Host, address: IpAddr) {
    let _postgres = serve(server, address);
    answers(client, address, PORT);
    let source = client.sh(&format!("ip -o route get {address}")).ok();
    let seen = psql(
        client,
        address,
        PORT,
        "disable",
        "select host(inet_client_addr())",
    );
    assert!(
        source.contains(&format!("src {seen} ")),
        "the server sees {seen}, the client has {source}"
    );
}

/// Starts a server that listens at this address alone.
pub fn serve(server: &Host, address: IpAddr) -> Process {
    server
        .run_as_user(&["sh", "-c", PREPARE, &program("initdb")])
        .ok();
    let listen = format!("listen_addresses={address}");
    let settings = [
        "-c",
        &listen,
        "-c",
        "ssl=on",
        "-c",
        "fsync=off",
        "-c",
        "unix_socket_directories=",
    ];
    let mut postgres = server
        .spawn_as_user(&[&[program("postgres").as_str(), "-D", "db"], &settings[..]].concat());
    postgres.says("ready to accept connections", Duration::from_secs(30));
    postgres
}

fn psql(client: &Host, address: IpAddr, port: u16, mode: &str, sql: &str) -> String {
    let server = format!("host={address} port={port} user={TESTER} dbname=postgres sslmode={mode}");
    client.run(&["psql", "-X", "-At", &server, "-c", sql]).ok()
}

/// Queries with and without TLS, with results larger than any window.
pub fn answers(client: &Host, address: IpAddr, port: u16) {
    for (mode, encrypted) in [("disable", "f"), ("require", "t")] {
        let psql = |sql: &str| psql(client, address, port, mode, sql);
        assert_eq!(
            psql("select ssl from pg_stat_ssl where pid = pg_backend_pid()"),
            encrypted
        );
        assert_eq!(psql("select repeat('x', 1000000)").len(), 1_000_000);
        let long = format!("select length('{}')", "x".repeat(100_000));
        assert_eq!(psql(&long), "100000");
    }
}
