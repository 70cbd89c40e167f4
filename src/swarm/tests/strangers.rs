//! What somebody sees who is no member, with a program of his own.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use hivevpn_core::membership::Network;
use libp2p::{
    StreamProtocol,
    request_response::{self, OutboundFailure, ProtocolSupport},
};

use super::*;

/// A request of nothing.
#[derive(Clone, Default)]
struct Nothing;

impl request_response::Codec for Nothing {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        Ok(())
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        stream.read(&mut [0; 1]).await.map(drop)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        stream: &mut T,
        (): (),
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.flush().await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }
}

/// Somebody who tries every door.
#[derive(NetworkBehaviour)]
struct Burglar {
    identify: identify::Behaviour,
    door: request_response::Behaviour<Nothing>,
    ping: libp2p::ping::Behaviour,
}

fn burglar(door: &str) -> libp2p::Swarm<Burglar> {
    let door = StreamProtocol::try_from_owned(door.to_owned()).unwrap();
    libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::new(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| Burglar {
            identify: identify::Behaviour::new(identify::Config::new(
                "/burglar/1".to_owned(),
                key.public(),
            )),
            door: request_response::Behaviour::new(
                [(door, ProtocolSupport::Outbound)],
                request_response::Config::default(),
            ),
            ping: libp2p::ping::Behaviour::new(
                libp2p::ping::Config::new().with_interval(Duration::from_millis(50)),
            ),
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

async fn listening_member() -> (Node, Multiaddr, Network) {
    let (node, address) = Node::listening().await;
    node.enter(1, b"credential").await;
    (node, address, network(1))
}

#[tokio::test]
async fn every_protocol_of_members_is_refused_to_a_stranger() {
    let (node, address, network) = listening_member().await;
    let kad = format!("/hivevpn/kad/{}/1", network.kad_protocol_suffix());
    for door in [
        "/hivevpn/sync/1",
        "/hivevpn/bench/1",
        "/hivevpn/reflect/1",
        "/hivevpn/carrier/1",
        "/libp2p/dcutr",
        "/ipfs/kad/1.0.0",
        &kad,
    ] {
        let mut burglar = burglar(door);
        let dial = DialOpts::peer_id(node.peer).addresses(vec![address.clone()]);
        burglar.dial(dial.build()).unwrap();
        burglar.behaviour_mut().door.send_request(&node.peer, ());
        let refused = async {
            loop {
                if let swarm::SwarmEvent::Behaviour(BurglarEvent::Door(
                    request_response::Event::OutboundFailure { error, .. },
                )) = burglar.select_next_some().await
                {
                    return matches!(error, OutboundFailure::UnsupportedProtocols);
                }
            }
        };
        assert!(timeout(PATIENCE, refused).await.unwrap(), "{door}");
    }
}

#[tokio::test]
async fn nothing_that_a_stranger_is_told_names_the_network() {
    let (node, address, network) = listening_member().await;
    let mut curious = burglar("/nothing");
    curious.dial(address).unwrap();
    let told = async {
        loop {
            if let swarm::SwarmEvent::Behaviour(BurglarEvent::Identify(
                identify::Event::Received { info, .. },
            )) = curious.select_next_some().await
            {
                return info;
            }
        }
    };
    let told = timeout(PATIENCE, told).await.unwrap();
    assert_eq!(told.public_key.to_peer_id(), node.peer);
    assert_eq!(told.protocol_version, "/hivevpn/1");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(told.agent_version, format!("hivevpn/{version}"));
    let said = format!("{told:?}");
    let id = network.id().to_string();
    for secret in [network.genesis().name().as_str(), &id, &id[..8]] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[tokio::test]
async fn a_stranger_that_goes_on_pinging_is_sent_away() {
    let address = free_address();
    let mut node = Node::start(|config| {
        config.listen = vec![address.clone()];
        config.proof_limit = Duration::from_secs(1);
    });
    node.enter(1, b"credential").await;
    let mut stranger = burglar("/nothing");
    let peer = *stranger.local_peer_id();
    stranger.dial(address).unwrap();
    let closed = async {
        loop {
            if let swarm::SwarmEvent::ConnectionClosed { .. } = stranger.select_next_some().await {
                return;
            }
        }
    };
    timeout(PATIENCE, closed).await.unwrap();
    let (connection, _) = node.opened(peer).await;
    node.closed(connection).await;
}
