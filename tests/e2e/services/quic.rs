//! A QUIC echo, server and client, each on its host.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::rustls::RootCertStore;
use quinn::{ClientConfig, Endpoint, ServerConfig};

use crate::lab::Host;

const NAME: &str = "echo.test";

/// Longer than an echo takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is sent and comes back.
const BYTES: usize = 3_000_000;

/// Sends some megabytes on a QUIC stream and asserts that the same come back.
pub fn works(from: &Host, to: &Host, address: IpAddr) {
    let server = serve(to, address);
    let target = server.address;
    server.echoes(from, target);
}

/// A server that echoes one stream.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    client: ClientConfig,
    serving: JoinHandle<()>,
}

/// Starts one at a free port of this address.
pub fn serve(to: &Host, address: IpAddr) -> Server {
    let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let (certificate, key) = (
        certified.cert.der().clone(),
        certified.key_pair.serialize_der(),
    );
    let server =
        ServerConfig::with_single_cert(vec![certificate.clone()], key.try_into().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();

    let (tell, told) = std::sync::mpsc::channel();
    let serving = to.thread(move || {
        run(async move {
            let endpoint = Endpoint::server(server, SocketAddr::new(address, 0)).unwrap();
            tell.send(endpoint.local_addr().unwrap()).unwrap();
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (mut back, mut stream) = connection.accept_bi().await.unwrap();
            let received = stream.read_to_end(BYTES).await.unwrap();
            back.write_all(&received).await.unwrap();
            back.finish().unwrap();
            connection.closed().await;
        });
    });
    Server {
        address: told.recv_timeout(PATIENCE).unwrap(),
        client,
        serving,
    }
}

impl Server {
    /// Has it echo, from where `target` leads to it.
    pub fn echoes(self, from: &Host, target: SocketAddr) {
        let Self {
            client, serving, ..
        } = self;
        from.here(move || {
            run(async move {
                let any: IpAddr = if target.is_ipv4() {
                    [0, 0, 0, 0].into()
                } else {
                    [0_u16; 8].into()
                };
                let endpoint = Endpoint::client(SocketAddr::new(any, 0)).unwrap();
                let connection = endpoint
                    .connect_with(client, target, NAME)
                    .unwrap()
                    .await
                    .unwrap();
                let (mut stream, mut back) = connection.open_bi().await.unwrap();
                let sent: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
                stream.write_all(&sent).await.unwrap();
                stream.finish().unwrap();
                assert!(
                    back.read_to_end(BYTES).await.unwrap() == sent,
                    "the echo is different"
                );
                connection.close(0_u32.into(), b"done");
                endpoint.wait_idle().await;
            });
        });
        serving
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

/// Runs a future on this thread, whose sockets are its host's.
fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("QUIC does not stall")
    });
}
