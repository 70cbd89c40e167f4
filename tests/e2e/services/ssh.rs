//! OpenSSH, server and client.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::deadline::until;
use crate::lab::{Host, Process, TESTER, program};
use crate::traffic::wait_for_listener;

/// The client knows the server's key and its own, and asks nobody.
const OPTIONS: &str = "-i id -o UserKnownHostsFile=known_hosts -o StrictHostKeyChecking=yes \
                       -o BatchMode=yes -o ConnectTimeout=10";

/// A shell's exit code, a file by scp and by sftp, and a session that stays open meanwhile.
pub fn works(client: &Host, server: &Host, address: IpAddr) {
    let _sshd = serve(server, address, client);
    let target = format!("{TESTER}@{address}");

    let shell = client.sh(&format!("ssh {OPTIONS} {target} \"sh -c 'id; exit 7'\""));
    assert_eq!(shell.code, Some(7), "{shell}");
    assert!(shell.stdout.contains("uid=1000"), "{shell}");

    let mut session = Session::open(client, &target);
    session.echoes("hello");
    let scp = format!("scp -q {OPTIONS}");
    client.sh("head -c 10000000 /dev/urandom > sent").ok();
    client
        .sh(&format!(
            "{scp} sent {target}:by-scp && {scp} {target}:by-scp back"
        ))
        .ok();
    client.sh("cmp sent back").ok();
    client
        .sh(&format!(
            "echo put sent by-sftp | sftp -q {OPTIONS} -b - {target}"
        ))
        .ok();
    let sum = |host: &Host, file: &str| host.sh(&format!("sha256sum < {file}")).ok();
    assert_eq!(sum(server, "by-sftp"), sum(client, "sent"));
    session.echoes("still there?");
    session.close();
}

/// A shell at a name, for a client that is shown its name servers by the shell line `show`, which ends in `exec "$@"`.
pub fn works_by_name(client: &Host, server: &Host, address: IpAddr, name: &str, show: &str) {
    let _sshd = serve(server, address, client);
    // The key is known by the address that it was made for.
    let line = format!("ssh {OPTIONS} -o HostKeyAlias={address} {TESTER}@{name} hostname");
    let shell = client.run(&["sh", "-c", show, "sh", "sh", "-c", &line]);
    assert_eq!(shell.ok(), server.name());
}

/// One session that is in use for this long.
pub fn lives(client: &Host, server: &Host, address: IpAddr, long: Duration) {
    let _sshd = serve(server, address, client);
    let mut session = Session::open(client, &format!("{TESTER}@{address}"));
    let (opened, mut count) = (Instant::now(), 0);
    until(
        long + Duration::from_secs(60),
        "the session's time passes",
        || {
            count += 1;
            session.echoes(&format!("line {count}"));
            opened.elapsed() > long
        },
    );
    session.close();
}

/// A running `ssh` whose other end echoes lines.
struct Session {
    ssh: Process,
    keystrokes: File,
}

impl Session {
    fn open(client: &Host, target: &str) -> Self {
        client.sh("mkfifo keystrokes").ok();
        let ssh = client.spawn(&[
            "sh",
            "-c",
            &format!("ssh {OPTIONS} {target} cat < keystrokes"),
        ]);
        let keystrokes = File::create(client.directory().join("keystrokes")).unwrap();
        Self { ssh, keystrokes }
    }

    fn echoes(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.keystrokes.write_all(line.as_bytes()).unwrap();
        self.ssh.says(&line, Duration::from_secs(20));
    }

    fn close(mut self) {
        drop(self.keystrokes);
        self.ssh.ends(Duration::from_secs(20)).ok();
    }
}

/// Starts `sshd` on port 22 of an address, for a fresh key of the client. It runs as an ordinary
/// user, so ordinary users may have port 22 first.
fn serve(server: &Host, address: IpAddr, client: &Host) -> Process {
    client.sh("ssh-keygen -q -t ed25519 -N '' -f id").ok();
    server.sh("sysctl -qw net.ipv4.ip_unprivileged_port_start=0 && ssh-keygen -q -t ed25519 -N '' -f host_key").ok();
    std::fs::copy(
        client.directory().join("id.pub"),
        server.directory().join("authorized_keys"),
    )
    .unwrap();
    let home = server.directory().display();
    let configuration = format!(
        "ListenAddress {address}\nHostKey {home}/host_key\nAuthorizedKeysFile {home}/authorized_keys\n\
         PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    );
    std::fs::write(server.directory().join("sshd_config"), configuration).unwrap();
    let sshd = server.spawn_as_user(&[
        &program("sshd"),
        "-D",
        "-e",
        "-f",
        &format!("{home}/sshd_config"),
    ]);
    wait_for_listener(server, 22);
    let key = std::fs::read_to_string(server.directory().join("host_key.pub")).unwrap();
    std::fs::write(
        client.directory().join("known_hosts"),
        format!("{address} {key}"),
    )
    .unwrap();
    sshd
}
