//! What this node's QUIC looks like on the wire, and what a stranger may cost it.

use std::{sync::Arc, time::Duration};

use libp2p::{PeerId, identity::Keypair};
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig,
    TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::{error::Error, tls};

// ---- What libp2p's specifications fix ------------------------------------------------------------

/// The only version: QUIC v1, RFC 9000. It is what `/quic-v1` in an address means.
const VERSIONS: [u32; 1] = [1];

/// libp2p has no names, yet TLS wants one. Nobody looks at it; RFC 2606 keeps it from being anybody's.
pub(super) const SERVER_NAME: &str = "peer.invalid";

// ---- Our own choices ------------------------------------------------------------------------------

/// Streams one peer may have open towards us. libp2p protocols use a few each; kad in a hurry, dozens.
const INBOUND_STREAMS: u32 = 256;

/// What a peer may send on one stream before we read it, in bytes. It bounds the speed of one stream:
/// 2 MiB carry 160 Mbit/s over 100 ms.
const STREAM_WINDOW: u32 = 2 << 20;

/// The same for all streams of one connection: the memory that one peer can fill.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// What we keep of one connection's own unacknowledged bytes.
const SEND_WINDOW: u64 = 4 << 20;

/// Connection attempts that may wait for the listener to look at them. It looks at once.
const MAX_INCOMING: usize = 1024;

/// Datagrams of one such attempt that are kept meanwhile, in bytes: a client's first flight is three.
const INCOMING_BUFFER: u64 = 16 << 10;

/// The same for all attempts together.
const INCOMING_BUFFER_TOTAL: u64 = 4 << 20;

/// The clocks of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long a handshake may take, and how long a hole is punched.
    ///
    /// DCUtR tries three times; with less, a slow path would never be tried to its end.
    pub handshake_timeout: Duration,
    /// Silence after which the peer is given up. The shorter of both ends' counts.
    ///
    /// Three keep-alives: a lost one, and a NAT that took a moment to reboot, must not end it.
    pub idle_timeout: Duration,
    /// Silence after which we say something. NATs may forget a mapping after 30 s, and some do sooner.
    pub keep_alive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(24),
            keep_alive: Duration::from_secs(8),
        }
    }
}

/// A [`Config`] and an identity, made into quinn's settings.
pub(super) struct Settings {
    keypair: Keypair,
    transport: Arc<TransportConfig>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) handshake_timeout: Duration,
}

impl Settings {
    pub(super) fn new(keypair: &Keypair, config: Config) -> Result<Self, Error> {
        let transport = Arc::new(transport_config(config));
        Ok(Self {
            keypair: keypair.clone(),
            server: Arc::new(server_config(keypair, Arc::clone(&transport))?),
            transport,
            handshake_timeout: config.handshake_timeout,
        })
    }

    /// For one dial: TLS itself refuses anybody but `expected`.
    ///
    /// A certificate of its own for each dial also means that no session is resumed, so the peer always
    /// proves its identity anew.
    pub(super) fn client(&self, expected: Option<PeerId>) -> Result<quinn::ClientConfig, Error> {
        let tls = tls::client(&self.keypair, expected)?;
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        client.transport_config(Arc::clone(&self.transport));
        Ok(client)
    }

    /// For the endpoint of one socket, named by `family`.
    pub(super) fn endpoint(&self, family: &str) -> EndpointConfig {
        // A node that has been restarted still knows this key, so it can tell the peers of its former
        // life that their connections are void. They need not wait for a timeout.
        //
        // Each socket has a key of its own: with one for both, whoever sees a connection ID on one
        // could ask the other for the token that ends the connection (RFC 9000, section 21.11).
        let domain = format!("hivevpn quic stateless reset {family}");
        let mut endpoint = match self.keypair.derive_secret(domain.as_bytes()) {
            Some(secret) => EndpointConfig::new(Arc::new(ring::hmac::Key::new(
                ring::hmac::HMAC_SHA256,
                &secret,
            ))),
            None => EndpointConfig::default(),
        };
        endpoint
            .supported_versions(VERSIONS.to_vec())
            .cid_generator(|| Box::new(RandomIds))
            // Every QUIC datagram to us has bit 0x40 of its first byte set, and no WireGuard datagram
            // has: by this bit the data loop knows them apart (RFC 9287 would let peers clear it).
            .grease_quic_bit(false);
        endpoint
    }
}

/// Connection IDs without meaning.
///
/// quinn's default marks them as its own with a key of the day, and would not reset those of yesterday. A lasting
/// key would let observers recognise the node wherever it goes.
struct RandomIds;

impl RandomIds {
    /// Bytes; enough that two connections never meet, and that nobody guesses one.
    const LENGTH: usize = 8;
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; Self::LENGTH]>())
    }

    fn cid_len(&self) -> usize {
        Self::LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport_config(config: Config) -> TransportConfig {
    let idle = u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(INBOUND_STREAMS))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(config.keep_alive))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        // An observer on the way could measure round trips by it.
        .allow_spin(false)
        .mtu_discovery_config(Some(quinn::MtuDiscoveryConfig::default()));
    transport
}

fn server_config(
    keypair: &Keypair,
    transport: Arc<TransportConfig>,
) -> Result<ServerConfig, Error> {
    let mut tls = tls::server(keypair)?;
    // Clients of ours never resume, see `Settings::client`.
    tls.send_tls13_tickets = 0;
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    server
        .transport_config(transport)
        // The dialer's address may change, as it does when its NAT reboots. (A listener's may not:
        // QUIC has no way for that, RFC 9000, section 9.)
        .migration(true)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    Ok(server)
}
